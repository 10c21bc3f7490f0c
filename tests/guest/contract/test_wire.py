import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from particle_agent.agent.failure import failure
from particle_agent.contract import wire
from particle_agent.contract.decode import DecodeError
from particle_agent.errors import CommandFailed

TEXT = st.text(max_size=50)
BY_TYPE = {
    int: st.integers(0, 1 << 62),
    float: st.floats(0, 1e9),
    str: TEXT,
    int | None: st.none() | st.integers(0, 99),
    str | None: st.none() | TEXT,
    tuple[str, ...]: st.lists(TEXT, max_size=5).map(tuple),
    tuple[wire.Part, ...]: st.lists(
        st.builds(wire.Part, name=TEXT, seconds=st.floats(0, 1e9)), max_size=5
    ).map(tuple),
}


def events(kind):
    hints = typing.get_type_hints(kind)
    fields = {
        name: st.sampled_from(typing.get_args(hint))
        if typing.get_origin(hint) is typing.Literal
        else BY_TYPE[hint]
        for name, hint in hints.items()
    }
    return st.builds(kind, **fields)


@given(event=st.one_of([events(kind) for kind in wire.EVENTS]))
def test_every_event_comes_back_as_it_went(event):
    line = wire.to_line(event)
    assert line.endswith("\n")
    assert line.isascii()
    assert line.count("\n") == 1
    assert wire.from_line(line.encode()) == event


@pytest.mark.parametrize("kind", wire.EVENTS)
def test_every_event_has_a_word_of_its_own(kind):
    words = [k.type for k in wire.EVENTS]
    assert words.count(kind.type) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b'"done"',
        b"{}",
        b'{"type": "nothing"}',
        b'{"type": ["done"]}',
        b'{"type": "done", "more": 1}',
        b'{"type": "output"}',
        b'{"type": "output", "text": 5}',
        b'{"type": "output", "text": null}',
        b'{"type": "stage-started", "index": "0"}',
        b'{"type": "stage-started", "index": true}',
        b'{"type": "stage-started", "index": 1.0}',
        b'{"type": "disk-written", "size": 1, "content": 1}',
        b'{"type": "failed", "kind": "other", "index": 0, "message": "", "hint": null, "tail": []}',
        b'{"type": "done"} {"type": "done"}',
        b"[" * 60_000,
        b'{"type": "output", "text": "' + b"x" * wire.LINE_LIMIT + b'"}',
    ],
    ids=lambda line: line[:45].decode(),
)
def test_anything_else_is_refused(line):
    with pytest.raises(DecodeError):
        wire.from_line(line)


@given(
    event=st.one_of([events(kind) for kind in wire.EVENTS]),
    place=st.integers(0, 80),
    junk=st.binary(max_size=20),
)
def test_no_bytes_do_anything_but_decode_or_be_refused(event, place, junk):
    """Random bytes overwrite a part of a line, which may stay an event."""
    line = wire.to_line(event).encode()
    try:
        found = wire.from_line(line[:place] + junk + line[place + len(junk) :])
    except DecodeError as refused:
        found = refused
    assert isinstance(found, (*wire.EVENTS, DecodeError))


@pytest.mark.parametrize("text", ["x", "\x00", "é", "日", "\U0001f600"])
def test_a_failing_command_fits_a_line_whatever_it_prints(text):
    failed = CommandFailed(["apt-get", text * 5000], 1, [text * 4096] * 40)
    line = wire.to_line(failure(failed))
    assert len(line) <= wire.LINE_LIMIT
    assert isinstance(wire.from_line(line.encode()), wire.Failed)

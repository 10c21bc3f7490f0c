"""The gate hides secrets in every form, however the text is divided."""

import base64
import binascii
import dataclasses
import html
import json
import re
import shlex
from typing import Literal
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from particle_agent.contract import wire
from particle_os.boot.observation.verdict import CheckResult, Verdict
from particle_os.errors import InvalidDocument, Problem, StageFailed
from particle_os.system import secret_forms
from particle_os.system.gate import HIDDEN, SLACK, Gate

from ...limited import limited

SECRET = "hunter2-\u00e4 'q\"<&>/+ tail"
# The mark contains asterisks, so a secret with asterisks may arise beside it.
SECRETS = st.binary(min_size=4, max_size=40).filter(
    lambda value: len(value.strip()) >= secret_forms.LEAST and b"*" not in value
)


def streamed(gate, data, cuts):
    stream, out, done = gate.stream(), b"", 0
    for at in [*sorted(cuts), len(data)]:
        out += stream.feed(data[done:at])
        done = at
    return out + stream.flush()


@given(SECRETS, st.binary(), st.binary(), st.lists(st.integers(0, 120)))
def test_no_division_of_a_stream_lets_a_secret_out(secret, before, after, cuts):
    out = streamed(Gate([secret]), before + secret + after, cuts)
    assert secret not in out
    assert HIDDEN in out


@pytest.mark.slow
@given(SECRETS, st.binary(max_size=30), st.lists(st.integers(0, 120)), st.data())
def test_the_division_of_a_stream_changes_nothing(secret, noise, cuts, data):
    pieces = data.draw(st.lists(st.sampled_from([secret, noise, secret[:3], secret[3:]])))
    whole = b"".join(pieces)
    gate = Gate([secret])
    assert streamed(gate, whole, cuts) == streamed(gate, whole, [])


@pytest.mark.slow
@given(st.text("abcd-XYZ0189", min_size=4, max_size=60), st.integers(1, 14), st.integers(0, 9))
@example("aaaaaaaa", 2, 1)
def test_a_secret_that_is_folded_into_lines_is_hidden(secret, width, size):
    lines = [secret[i : i + width] for i in range(0, len(secret), width)]
    gate = Gate([secret.encode()])
    for divider in ("\n", "\r\n", "\n[   12.345678] ", "\n\x1b[0m"):
        data = divider.join(["<", *lines, ">"]).encode()
        out = streamed(gate, data, range(0, len(data), size + 1))
        squeezed = re.sub(rb"[\r\n]+(\[ *[0-9.]+\] )?|\x1b\[0m", b"", out)
        assert secret.encode() not in squeezed
        assert HIDDEN in squeezed
        assert out.count(b"\n") == data.count(b"\n")
        assert out.startswith(b"<") and out.endswith(b">")


FORMS = {
    "as it is": lambda v: v,
    "base64": base64.b64encode,
    "base64 after one byte": lambda v: base64.b64encode(b"x" + v + b"y"),
    "base64 after two bytes": lambda v: base64.b64encode(b"xy" + v + b"yz"),
    "base64 in lines": lambda v: re.sub(rb"(.{5})", rb"\1\n", base64.b64encode(b"x" + v)),
    "base64 for URLs": base64.urlsafe_b64encode,
    "hex": binascii.hexlify,
    "HEX": lambda v: binascii.hexlify(v).upper(),
    "hex with blanks": lambda v: v.hex(" ").encode(),
    "hex in pairs": lambda v: v.hex(" ", 2).encode(),
    "hex with colons": lambda v: v.hex(":").encode(),
    "hex escapes": lambda v: "".join(f"\\x{b:02x}" for b in v).encode(),
    "hex in lines": lambda v: re.sub(rb"(.{10})", rb"\1\n", binascii.hexlify(v)),
    "URL": lambda v: quote(v, safe="").encode(),
    "URL with slashes": lambda v: quote(v).encode(),
    "form": lambda v: quote_plus(v).encode(),
    "url in lower case": lambda v: re.sub(
        rb"%..", lambda m: m.group().lower(), quote(v, safe="").encode()
    ),
    "JSON": lambda v: json.dumps(v.decode())[1:-1].encode(),
    "JSON in UTF-8": lambda v: json.dumps(v.decode(), ensure_ascii=False)[1:-1].encode(),
    "shell": lambda v: shlex.quote(v.decode()).encode(),
    "shell's trace": lambda v: v.replace(b"'", b"'\\''"),
    "HTML": lambda v: html.escape(v.decode()).encode(),
    "XML": lambda v: html.escape(v.decode(), quote=False).encode(),
    "Python": lambda v: v.decode().encode("unicode_escape"),
}


# What other programs make of SECRET, as they print it.
PRINTED = {
    "Go": r"hunter2-ä 'q\"\u003c\u0026\u003e/+ tail",
    ".NET": r"hunter2-\u00E4 \u0027q\u0022\u003C\u0026\u003E/\u002B tail",
    "Java": r"hunter2-\u00E4 'q\"<&>/+ tail",
    "PHP": r"hunter2-\u00e4 'q\"<&>\/+ tail",
    "XML": "hunter2-ä &apos;q&quot;&lt;&amp;&gt;/+ tail",
    "JavaScript": "hunter2-%C3%A4%20'q%22%3C%26%3E%2F%2B%20tail",
    "bash": r"hunter2-ä\ \'q\"\<\&\>/+\ tail",
    "Python": "hunter2-ä \\'q\"<&>/+ tail",
}


@pytest.mark.parametrize("program", PRINTED)
def test_a_secret_is_hidden_as_other_programs_print_it(program):
    out = Gate([SECRET.encode()]).text(f"before {PRINTED[program]} after")
    assert out == "before *** after"


def test_a_secret_with_a_comma_is_hidden_as_bash_quotes_it():
    assert Gate([b"token,with=commas"]).text(r"<token\,with=commas>") == "<***>"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [SECRET, "plain-Token_0123456789", "abcd", "a?>b~~~"])
def test_a_secret_is_hidden_in_each_form(form, secret):
    printed = FORMS[form](secret.encode())
    out = streamed(Gate([secret.encode()]), b"before " + printed + b" after", range(80))
    left = out.removeprefix(b"before ").removesuffix(b" after")
    assert HIDDEN in left
    # The mark replaces all but quotes and the digits that neighbours share.
    assert len(b"".join(left.replace(HIDDEN, b"").split())) <= 9, left


def test_each_line_of_a_secret_is_hidden():
    gate = Gate([b"first line\nab\nsecond line\n"])
    assert gate.text("x ab y second line z first line.") == "x ab y *** z ***."


def test_the_lines_of_a_long_secret_are_hidden():
    lines = [f"line number {n}" for n in range(secret_forms.ENCODED_LINES + 50)]
    gate = Gate(["\n".join(lines).encode()])
    assert gate.text(f"see {lines[0]}") == "see ***"
    assert gate.text(f"see {lines[-1]}") == "see ***"


def test_bytes_that_are_no_utf_8_are_hidden_in_a_text():
    secret = b"\xff\xfeabcdef"
    assert Gate([secret]).text(f"<{secret.decode('utf-8', 'replace')}>") == "<***>"


def test_overlapping_secrets_are_hidden_whole():
    gate = Gate([b"abcdefgh", b"efghijkl"])
    assert gate.text("<abcdefghijkl>") == "<***>"
    assert streamed(gate, b"<abcdefghijkl>", range(14)) == b"<***>"


def test_a_text_that_is_cut_within_a_secret_shows_no_long_part_of_it():
    secret = "0123456789abcdefghijklmnopqrstuvwxyz"
    gate = Gate([secret.encode()])
    assert gate.text(f"see {secret[:20]}") == "see ***"
    assert gate.text(f"{secret[20:]} was it") == "*** was it"
    assert gate.text(secret[5:25]) == "***"
    assert gate.text("\n".join(secret[10:])) == "\n".join(["***"] * 26)


def test_the_shortest_part_of_a_secret_that_is_hidden():
    secret = "0123456789abcdefghijklmnopqrstuvwxyz"
    gate = Gate([secret.encode()])
    assert gate.text(f"{secret[-8:]} was it, see {secret[:8]}") == "*** was it, see ***"
    shown = f"{secret[-7:]} was it, see {secret[:7]}"
    assert gate.text(shown) == shown


@pytest.mark.parametrize("closing", ["'", '"', "…", "')", '"]', "…'"])
def test_a_text_that_is_cut_and_quoted_shows_no_long_part_of_a_secret(closing):
    gate = Gate([b"0123456789abcdefghijklmnopqrstuvwxyz"])
    assert gate.text(f"see '0123456789abcd{closing}") == f"see '***{closing}"
    assert gate.text(f"see '0123{closing}") == f"see '0123{closing}"


@pytest.mark.parametrize("divider", ["\n", "\n\n", " \n\t"])
def test_a_secret_of_which_blanks_are_missing_is_hidden(divider):
    gate = Gate([b"one two three four"])
    assert gate.text(divider.join(["<one", "two", "three", "four>"])).count("***") == 4
    lines = gate.line_stream()
    shown = [*lines.feed("one t"), *lines.feed("wo"), *lines.feed("three four"), *lines.flush()]
    assert shown == ["***", "***", "***"]


def test_a_stream_that_ends_within_a_secret_shows_no_long_part_of_it():
    gate = Gate([b"0123456789abcdefghijklmnopqrstuvwxyz"])
    stream = gate.stream()
    assert stream.feed(b"see 0123456789abc") == b"see "
    assert stream.peek() == b"***"
    assert stream.flush() == b"***"
    assert stream.flush() == b""


def test_a_stream_holds_back_only_what_may_become_a_secret():
    stream = Gate([b"hunter2-and-more"]).stream()
    assert stream.feed(b"a line of a guest\n") == b"a line of a guest\n"
    assert stream.feed(b"hunter2") == b""
    assert stream.feed(b" was a film\n") == b"hunter2 was a film\n"


def test_the_memory_of_a_stream_is_bounded():
    secret = b"abcdefgh" * 4
    gate = Gate([secret])
    stream = gate.stream()
    fed, out = 0, 0
    for piece in [b"abcdefgh", *[b"\n" * 1000] * 100]:
        fed += len(piece)
        out += len(stream.feed(piece))
        assert fed - out <= gate.longest + SLACK + 100


@pytest.mark.slow
def test_a_repetitive_stream_is_not_held_back():
    gate = Gate([b"aaaaaaaa"])
    stream = gate.stream()
    for _ in range(100):
        stream.feed(b"a" * 1000)
    assert len(stream.peek()) <= gate.longest
    assert set(stream.flush()) <= set(HIDDEN)


def test_a_gate_without_secrets_changes_nothing():
    gate = Gate()
    value = wire.OutputLine(text="x")
    assert gate.hide(value) is value
    assert gate.stream().feed(b"\xff") == b"\xff"
    assert gate.line_stream().feed("a\nb") == ["a\nb"]


def test_a_stream_hides_what_is_learned_after_its_start():
    gate = Gate()
    stream = gate.stream()
    assert stream.feed(b"hunter2-x") == b"hunter2-x"
    gate.learn([b"hunter2-x"])
    assert stream.feed(b"<hunter2-x>") == b"<***>"


@given(st.lists(st.text("ab\n", max_size=9), max_size=9))
def test_lines_stay_as_many_as_they_were(lines):
    shown = Gate([b"abab", b"aaaaaaa"]).lines(lines)
    assert [line.count("\n") for line in shown] == [line.count("\n") for line in lines]


def test_a_stream_of_lines_hides_a_secret_over_several_lines():
    lines = Gate([b"hunter2-and-more"]).line_stream()
    shown = []
    for line in ("one", "token: hunter2-", "and-", "more.", "two", "hunter"):
        shown += lines.feed(line)
    assert shown == ["one", "token: ***", "***", "***.", "two"]
    assert lines.flush() == ["hunter"]


def test_words_of_the_protocol_and_digests_are_no_text():
    @dataclasses.dataclass(frozen=True)
    class Event:
        type: Literal["text"]
        level: Literal["text"] | None
        sha256: str
        build_key: str
        message: str
        parts: dict[str, tuple[int, ...]]

    # The type hints of a local class need its globals only.
    event = Event("text", "text", "text", "text", "text", {"text": (1, 2)})
    hidden = Event("text", "text", "text", "text", "***", {"***": (1, 2)})
    assert Gate([b"text"]).hide(event) == hidden
    verdict = Verdict(
        status="passed", seconds=1, message="passed",
        checks=(CheckResult(name="a", passed=True, detail="it passed"),),
    )  # fmt: skip
    shown = Gate([b"passed"]).hide(verdict)
    assert (shown.status, shown.message, shown.checks[0].detail) == ("passed", "***", "it ***")


def test_an_error_shows_no_secret():
    gate = Gate([b"hunter2-and-more"])
    error = StageFailed(
        "hunter2-and-more", hint="x hunter2-and-more", where="hunter2-and-more y",
        tail=["hunter2-", "and-more"],
    )  # fmt: skip
    gate.clean(error)
    assert (str(error), error.brief, error.hint, error.where) == ("***", "***", "x ***", "*** y")
    assert error.tail == ("***", "***")
    invalid = InvalidDocument([Problem("r.yml", 1, 1, "code", "hunter2-and-more")])
    gate.clean(invalid)
    assert invalid.problems[0].message == "***"


@pytest.mark.slow
@pytest.mark.parametrize("data", ["b'\\n' * (1 << 20)", "b'\\x1b[' * (1 << 19)", "b'\\r' * 300000"])
def test_a_long_run_of_breaks_takes_little_time(data):
    setup = "from particle_os.system.gate import Gate"
    action = f"""
    gate = Gate([b"correct horse battery staple"])
    gate.text(({data}).decode())
    stream = gate.stream()
    for _ in range(4):
        stream.feed(({data})[:65536])
    print("done")
    """
    assert limited(setup, action) == "done\n"

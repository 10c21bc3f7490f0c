import io
import json
import re

import pytest
from particle_os.report import progress
from particle_os.report.live_view import TerminalSink
from particle_os.report.progress import (
    JsonSink,
    Line,
    LogSink,
    Note,
    PhaseFinished,
    PhaseStarted,
    PlainSink,
    Progress,
    StageFinished,
    StageStarted,
)
from particle_os.system.gate import Gate
from rich.console import Console

EVENTS = [
    PhaseStarted("stages"),
    StageStarted(0, 2, "apt"),
    Line("Setting up \x1b[31mlibc6"),
    Note("no KVM\x07"),
    StageFinished(0, 2, "apt", 12.34),
    PhaseFinished("stages", 13.0),
]
PLAIN = [
    "stages ...",
    "  stage 1/2 apt ...",
    "note: no KVM\\x07",
    "  stage 1/2 apt: 12.3 s",
    "stages: 13.0 s",
]


def shown(make):
    stream = io.StringIO()
    sink = make(stream)
    for event in EVENTS:
        sink.emit(event)
    sink.close()
    return stream.getvalue().splitlines()


def test_plain_is_a_line_an_event():
    assert shown(lambda stream: PlainSink(stream, verbose=False)) == PLAIN


def test_verbose_shows_what_programs_print_escaped():
    lines = shown(lambda stream: PlainSink(stream, verbose=True))
    assert lines == [*PLAIN[:2], "    Setting up \\x1b[31mlibc6", *PLAIN[2:]]


def test_json_is_an_object_a_line():
    objects = [json.loads(line) for line in shown(JsonSink)]
    assert [o["event"] for o in objects] == [
        "phase-started",
        "stage-started",
        "line",
        "note",
        "stage-finished",
        "phase-finished",
    ]
    assert objects[4] == {
        "event": "stage-finished",
        "index": 0,
        "total": 2,
        "label": "apt",
        "seconds": 12.34,
        "cached": False,
    }


def test_the_log_keeps_everything_with_the_time(tmp_path):
    sink = LogSink(tmp_path / "log")
    for event in EVENTS:
        sink.emit(event)
    sink.close()
    sink.emit(Note("too late"))
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(EVENTS)
    assert all(re.match(r" *\d+\.\d\d ", line) for line in lines)
    assert lines[2].endswith("Setting up \\x1b[31mlibc6")


def test_the_log_takes_any_text_of_a_guest(tmp_path):
    sink = LogSink(tmp_path / "log")
    sink.emit(Line("a lone \ud800 surrogate"))
    sink.close()
    assert "a lone \\ud800 surrogate" in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "event", [Note("x" * 2000), Line("x" * 2000), StageStarted(0, 2, "x" * 2000),
              StageFinished(0, 2, "x" * 2000, 1.0)],
)  # fmt: skip
def test_the_log_is_bounded_whatever_the_guest_repeats(tmp_path, monkeypatch, event):
    monkeypatch.setattr(progress, "LOG_LIMIT", 100_000)
    monkeypatch.setattr(progress, "RESERVE", 10_000)
    sink = LogSink(tmp_path / "log")
    for _ in range(200):
        sink.emit(event)
    sink.emit(PhaseStarted("the last phase"))
    sink.close()
    text = (tmp_path / "log").read_text()
    assert len(text) <= 110_100
    assert "the last phase ..." in text


def test_a_flood_of_output_leaves_room_for_notes(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LOG_LIMIT", 10_000)
    sink = LogSink(tmp_path / "log")
    for _ in range(200):
        sink.emit(Line("x" * 100))
    sink.emit(Note("a note"))
    sink.close()
    text = (tmp_path / "log").read_text()
    assert "note: a note" in text
    assert len(text) < 10_200


def test_phases_are_timed_and_a_failed_one_does_not_finish():
    stream = io.StringIO()
    progress = Progress([PlainSink(stream, verbose=False)])
    with pytest.raises(ValueError), progress.phase("boot test"):
        raise ValueError
    assert stream.getvalue() == "boot test ...\n"
    assert progress.phases["boot test"] >= 0
    assert progress.phase_starts["boot test"] >= 0


def test_what_an_earlier_build_has_done_is_said_to_be_cached():
    finished = StageFinished(0, 2, "apt", 0.0, cached=True)
    plain, terminal = io.StringIO(), io.StringIO()
    PlainSink(plain, verbose=False).emit(finished)
    live = TerminalSink(Console(file=terminal, force_terminal=True, width=80), verbose=False)
    live.emit(finished)
    live.close()
    assert plain.getvalue() == "  stage 1/2 apt: cached\n"
    assert "1/2 apt" in terminal.getvalue()
    assert "cached" in terminal.getvalue()
    assert "0.0 s" not in terminal.getvalue()


def test_a_line_of_a_guest_is_no_command_to_a_workflow():
    plain, objects = io.StringIO(), io.StringIO()
    progress = Progress([PlainSink(plain, verbose=True), JsonSink(objects)])
    for text in ("::stop-commands::mine", " ##[add-mask]x"):
        progress.line(text)
        progress.note(text)
    assert plain.getvalue().splitlines() == [
        "    \\x3a:stop-commands::mine",
        "note: ::stop-commands::mine",
        "     #\\x23[add-mask]x",
        "note:  #\\x23[add-mask]x",
    ]
    assert "##" not in objects.getvalue()
    assert json.loads(objects.getvalue().splitlines()[2])["text"] == " ##[add-mask]x"


def test_a_secret_over_several_lines_is_hidden_before_the_next_event():
    stream = io.StringIO()
    progress = Progress([PlainSink(stream, verbose=True)], Gate([b"hunter2-and-more"]))
    for text in ("hunter2", "-and", "-more", "hunter"):
        progress.line(text)
    progress.note("see hunter2-and-more")
    shown = "    ***\n    ***\n    ***\n    hunter\nnote: see ***\n"
    assert stream.getvalue() == shown
    progress.line("hunter")
    assert stream.getvalue() == shown
    progress.close()
    assert stream.getvalue() == f"{shown}    hunter\n"

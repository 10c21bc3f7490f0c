import io
import re

from particle_os.report.live_view import TerminalSink, make_sink
from particle_os.report.progress import (
    JsonSink,
    LastTime,
    Line,
    PhaseStarted,
    PlainSink,
    StageFinished,
    StageStarted,
)
from rich.console import Console


def test_the_style_asked_for_is_taken(capsys):
    assert make_sink("none", verbose=False, quiet=False) is None
    assert make_sink("json", verbose=False, quiet=True) is None
    assert isinstance(make_sink("json", verbose=False, quiet=False), JsonSink)
    assert isinstance(make_sink("plain", verbose=False, quiet=False), PlainSink)
    assert isinstance(make_sink("auto", verbose=False, quiet=False), PlainSink)


def live(width, *events):
    """The lines of a live view after the events: those above it, and its own."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    sink = TerminalSink(console, verbose=False)
    for event in events:
        sink.emit(event)
    paper = Console(file=io.StringIO(), width=width, color_system=None)
    for part in sink._running.get_renderables():
        paper.print(part)
    sink.close()
    shown = console.file.getvalue()
    done = [line for line in shown.splitlines() if "✓" in line]
    return done, paper.file.getvalue().splitlines()


def test_the_last_line_stands_under_anything_that_runs():
    for step in (PhaseStarted("helper VM"), StageStarted(0, 2, "apt")):
        _, rows = live(80, PhaseStarted("build"), step, Line("Unpacking [red]x"))
        assert rows[-1] == "    Unpacking [red]x"
    assert live(80, PhaseStarted("build"), Line("x"), PhaseStarted("next"))[1][-1] != "    x"


def test_nested_steps_are_indented_below_the_clock_of_the_whole():
    _, rows = live(80, PhaseStarted("build"), PhaseStarted("stages"), StageStarted(0, 2, "a[b]"))
    texts = [re.sub(r"^\S ", "", row).rstrip() for row in rows]
    assert [len(text) - len(text.lstrip()) for text in texts] == [0, 0, 2, 4]
    assert texts[0].startswith("in all ")
    assert "1/2 a[b]" in texts[3]
    assert all(re.search(r" \d:\d\d:\d\d$", text) for text in texts)


def test_no_row_is_wider_than_a_narrow_terminal():
    name = "a stage with a long name, " * 4
    done, rows = live(
        50,
        StageFinished(0, 9, name, 100.0), PhaseStarted(name), StageStarted(1, 9, name), Line(name),
    )  # fmt: skip
    assert len(rows) == 4
    assert max(map(len, rows)) <= 50
    assert [line.rstrip()[-7:] for line in done if "1/9" in line] == ["100.0 s"]


def test_the_packages_are_counted():
    events = [StageStarted(0, 1, "apt"), Line("0 upgraded, 4 newly installed, 0 to remove")]
    events += [Line(f"Setting up {name} (1.0)") for name in ("a", "b", "c")]
    assert " 3/4 75 % " in live(80, *events)[1][-2]
    assert "%" not in "".join(live(80, *events, PhaseStarted("boot test"))[1][-1:])


def test_the_time_of_the_last_run_stands_beside_the_clock():
    assert "last time 0:24:05 0:00:00" in live(80, LastTime(1445.2), PhaseStarted("x"))[1][0]
    stream = io.StringIO()
    PlainSink(stream, verbose=False).emit(LastTime(1445.2))
    assert stream.getvalue() == "the last time, it took 1445 s\n"

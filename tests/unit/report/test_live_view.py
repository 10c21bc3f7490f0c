import io
import re

import pytest
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

from .terminals import Terminal


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


def test_the_bytes_of_packages_are_counted_in_per_cent():
    begin = "Get:{} http://m.example.org/debian trixie/main amd64 {} amd64 1.0 [{} kB]"
    events = [StageStarted(0, 1, "apt"), Line(begin.format(1, "index", "9,000"))]
    assert "%" not in "".join(live(80, *events)[1])
    events += [Line("Need to get 2,000 kB/5,000 kB of archives.")]
    assert "%" not in "".join(live(80, *events)[1])
    shown = ["0 %", "25 %", "50 %", "100 %"]
    lines = [
        begin.format(1, "a", "500"),
        begin.format(2, "b", "500"),
        begin.format(3, "c", "1,000"),
        "Fetched 2,000 kB in 1s (2,000 kB/s)",
    ]
    for number, per_cent in enumerate(shown, start=1):
        rows = live(80, *events, *map(Line, lines[:number]))[1]
        assert f" {per_cent} " in rows[-2]
    assert " 1/2 50 % " in live(
        80, *events, *map(Line, lines), Line("0 upgraded, 2 newly installed,"),
        Line("Setting up a (1.0)"),
    )[1][-2]  # fmt: skip


def test_the_per_cent_of_other_downloads_are_shown():
    for line in ("fetched 37 % of 1200 bytes", "fetched 37 % of 1200 bytes and more"):
        assert " 37 % " in live(80, PhaseStarted("fetch base image"), Line(line))[1][-2]


def test_the_time_of_the_last_run_stands_beside_the_clock():
    assert "last time 0:24:05 0:00:00" in live(80, LastTime(1445.2), PhaseStarted("x"))[1][0]
    stream = io.StringIO()
    PlainSink(stream, verbose=False).emit(LastTime(1445.2))
    assert stream.getvalue() == "the last time, it took 1445 s\n"


PROGRAM = """
import os, sys, termios
from rich.console import Console
from particle_os.report.live_view import TerminalSink
from particle_os.report.progress import *

def pause():
    sink._running.refresh()
    os.write(2, b"MARK")
    sys.stdin.readline()
    if REFRESHES:
        sink._running.refresh()

settings = termios.tcgetattr(0)
settings[3] &= ~termios.ECHO
termios.tcsetattr(0, termios.TCSANOW, settings)
sink = TerminalSink(Console(stderr=True), verbose=False)
# The test decides when the view is drawn.
sink._running.live._refresh_thread.stop()
sink._running.live._refresh_thread.join()
for event in (
    PhaseStarted("helper VM"), PhaseFinished("helper VM", 3.0),
    PhaseStarted("stages"), StageStarted(0, 2, "apt"), Line("Unpacking " + 30 * "word "),
):
    sink.emit(event)
pause()
for event in (
    StageFinished(0, 2, "apt", 2.0), StageStarted(1, 2, "users"), Line("adding a user"),
):
    sink.emit(event)
pause()
sink.emit(StageFinished(1, 2, "users", 1.0))
sink.emit(PhaseFinished("stages", 4.0))
sink.close()
"""
# It changes nothing on the screen.
MARK = "\x1b[?1h"
NARROWER, WIDER, LOWER = (24, 30), (24, 120), (8, 80)


@pytest.mark.slow
@pytest.mark.parametrize("refreshes", [True, False])
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ([], {}),
        ([NARROWER], {}),
        ([NARROWER, WIDER], {}),
        ([WIDER, NARROWER], {}),
        ([(24, 60), (24, 40)], {}),
        ([LOWER], {}),
        ([NARROWER], {"cuts": True, "XTERM_VERSION": "XTerm(390)"}),
        ([NARROWER], {"cuts": True, "STY": "1.pts"}),
    ],
)
def test_a_resized_terminal_keeps_each_finished_step_once_and_nothing_else(
    sizes, options, refreshes
):
    program = PROGRAM.replace("MARK", MARK).replace("REFRESHES", str(refreshes))
    terminal = Terminal(program, 24, 80, **options)
    for size in [*sizes, None, None][:2]:
        terminal.wait_for(MARK)
        assert terminal.text[-1].startswith("    ")
        if size is not None:
            terminal.resize(*size)
        terminal.answer()
    terminal.end()
    steps = [row.split()[1] for row in terminal.text if row.startswith("✓")]
    assert steps == ["helper", "1/2", "2/2", "stages"]
    # A step of an earlier, wider terminal can take a second row: its time.
    others = [row.strip() for row in terminal.text if not row.startswith("✓")]
    assert all(re.fullmatch(r"\d\.\d s", row) for row in others), terminal.text


@pytest.mark.slow
def test_the_emulated_terminal_detects_ghosts():
    """Without any regard to the size, rows of the live view stay on the screen."""
    blind = "import particle_os.report.live_view as v; v._cuts_rows = lambda environment: True\n"
    program = blind + PROGRAM.replace("MARK", MARK).replace("REFRESHES", "True")
    terminal = Terminal(program, 24, 80)
    for size in (NARROWER, WIDER):
        terminal.wait_for(MARK)
        terminal.resize(*size)
        terminal.answer()
    terminal.end()
    assert any("in all" in row or "stages  " in row for row in terminal.text[:-1])

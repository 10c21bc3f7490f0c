"""The live view of a run on a terminal, and the choice between it and the other views."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import rich.progress
from rich.console import Console, RenderableType
from rich.control import Control
from rich.markup import escape
from rich.segment import ControlType
from rich.table import Column
from rich.text import Text

from particle_os.apt import transfer
from particle_os.errors import printable, whole_line
from particle_os.report.progress import (
    BootPhase,
    Event,
    JsonSink,
    LastTime,
    Line,
    Note,
    PhaseFinished,
    PhaseStarted,
    PlainSink,
    Sink,
    StageFinished,
    StageStarted,
)

# Columns of a row of the live view, and of the last line of output below the rows.
ROW_WIDTH, LAST_WIDTH = 56, 79
# apt's summary before it installs packages, and its line after it has fetched all.
_TO_INSTALL = re.compile(r"^(\d+) upgraded, (\d+) newly installed")
_ALL = re.compile(r"^Fetched [\d.,]+ [kMGT]?B in ")
# A line of `apt.transfer`, or of a transfer to or from a registry.
_FETCHED = re.compile(r"^(?:fetched|sent) (\d{1,3} %) of ")


class _Running(rich.progress.Progress):
    """The running steps, each below the step that it is a part of, and the last line of output."""

    def __init__(self, console: Console) -> None:
        # rich draws before it has a console of its own.
        self._terminal = console
        self._drawn = _Frame((), 0)
        self.last = ""
        text = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        super().__init__(
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description}", table_column=text),
            rich.progress.TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True)),
            rich.progress.TimeElapsedColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            refresh_per_second=8,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        self.follow_resize()
        # A terminal that gets narrower breaks only rows that are wider than it.
        width = self._terminal.width - 1
        table = self.make_tasks_table(self.tasks)
        table.width = min(width, ROW_WIDTH)
        rows = [table.width] * len(self.tasks)
        parts: list[RenderableType] = [table]
        if self.last and len(self.tasks) > 1:
            last = Text(f"    {self.last}", style="dim", no_wrap=True)
            last.truncate(min(width, LAST_WIDTH), overflow="ellipsis")
            rows.append(last.cell_len)
            parts.append(last)
        self._drawn = _Frame(tuple(rows), width + 1)
        return parts

    def follow_resize(self) -> None:
        """Erases the rows that a narrower terminal has made of the drawn ones.

        rich erases as many rows as it has drawn. Call this before anything is printed.
        """
        # rich draws in a thread of its own, too.
        with self._lock:
            broken = self._drawn.broken_rows(self._terminal.width)
            if broken:
                up = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)]
                self._terminal.control(Control(*up * broken))
                self._drawn = _Frame((), 0)


@dataclass(frozen=True)
class _Frame:
    """The columns of the rows that were drawn, on a terminal of `width` columns."""

    rows: tuple[int, ...]
    width: int

    def broken_rows(self, width: int) -> int:
        """The rows that the terminal has added because it is narrower now.

        Most terminals break a row that has become too wide. Some cut it off.
        """
        if width >= self.width or _cuts_rows(os.environ):
            return 0
        return sum((columns - 1) // width for columns in self.rows)


def _cuts_rows(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is xterm or GNU Screen, which cut rows off."""
    return "XTERM_VERSION" in environment or ("STY" in environment and "TMUX" not in environment)


class _Counts:
    """Counts in the lines of apt, and of our downloads, how far they are."""

    def __init__(self) -> None:
        self._done, self._total = 0, 0
        # Bytes of packages: that are fetched, of the package that is being fetched, and of all.
        self._fetched, self._current, self._to_fetch = 0, 0, 0

    def count(self, line: str) -> str:
        """The count after a line, such as "3/12 25 %" or "25 %"; "" for a line without one."""
        if found := _FETCHED.match(line):
            return found[1]
        return self._set_up(line) or self._download(line)

    def _set_up(self, line: str) -> str:
        if found := _TO_INSTALL.search(line):
            self._done, self._total = 0, int(found[1]) + int(found[2])
        elif line.startswith("Setting up "):
            self._done += 1
            if self._done <= self._total:
                return f"{self._done}/{self._total} {100 * self._done // self._total} %"
        return ""

    def _download(self, line: str) -> str:
        if (size := transfer.needed(line)) is not None:
            # All of them may be in the host's cache.
            self._fetched, self._current, self._to_fetch = 0, 0, size
            return ""
        if (size := transfer.begun(line)) is not None:
            self._fetched += self._current
            self._current = size
        elif _ALL.match(line):
            self._fetched = self._to_fetch
        else:
            return ""
        if not self._to_fetch:
            # apt fetches indexes, and does not say how many.
            return ""
        return f"{min(100, 100 * self._fetched // self._to_fetch)} %"


class TerminalSink:
    """A live view: finished steps with their duration, running steps with a clock.

    The first clock is that of the whole run.
    """

    def __init__(self, console: Console, *, verbose: bool) -> None:
        self._console = console
        self._verbose = verbose
        self._running = _Running(console)
        self._phases = [self._begin("in all", 0)]
        self._stage: rich.progress.TaskID | None = None
        self._counts = _Counts()
        self._running.start()

    def _begin(self, what: str, depth: int) -> rich.progress.TaskID:
        self._running.last = ""
        self._counts = _Counts()
        # A label may contain the brackets of rich's markup.
        return self._running.add_task(escape(f"{'  ' * depth}{what}"), total=None, count="")

    def _end_stage(self) -> None:
        if self._stage is not None:
            self._running.remove_task(self._stage)
        self._stage = None

    def emit(self, event: Event) -> None:
        self._running.follow_resize()
        depth = len(self._phases) - 1
        match event:
            case PhaseStarted(phase):
                self._phases.append(self._begin(phase, depth))
            case StageStarted(index, total, label):
                self._end_stage()
                self._stage = self._begin(f"{index + 1}/{total} {label}", depth)
            case PhaseFinished(phase, seconds):
                self._end_stage()
                self._running.remove_task(self._phases.pop())
                self._done(f"{'  ' * (depth - 1)}{phase}", seconds)
            case StageFinished(index, total, label, seconds, cached):
                self._end_stage()
                self._done(f"  {index + 1}/{total} {label}", None if cached else seconds)
            case BootPhase(name, seconds):
                self._done(f"  {name}", seconds)
            case LastTime(seconds):
                took = timedelta(seconds=round(seconds))
                self._running.update(self._phases[0], count=f"last time {took}")
            case Note(text):
                self._console.print(Text(f"• {printable(text)}", style="yellow"))
            case Line(text):
                self._line(printable(text, 300))

    def _line(self, text: str) -> None:
        self._running.last = text
        if count := self._counts.count(text):
            self._running.update(self._stage or self._phases[-1], count=count)
        if self._verbose:
            self._console.print(Text(whole_line(f"    {text}"), style="dim"))

    def _done(self, what: str, seconds: float | None) -> None:
        took = "   cached" if seconds is None else f"{seconds:7.1f} s"
        step = Text(what)
        step.truncate(min(44, self._console.width - len(took) - 3), overflow="ellipsis", pad=True)
        self._console.print(Text.assemble(("✓ ", "green"), step, " ", (took, "cyan")))

    def close(self) -> None:
        self._running.last = ""
        self._running.stop()


def make_sink(style: str, *, verbose: bool, quiet: bool) -> Sink | None:
    """The sink for `--progress`, on standard error; None if it shows nothing."""
    if quiet or style == "none":
        return None
    if style == "json":
        return JsonSink(sys.stderr)
    if style == "auto" and sys.stderr.isatty():
        return TerminalSink(Console(stderr=True), verbose=verbose)
    return PlainSink(sys.stderr, verbose=verbose)

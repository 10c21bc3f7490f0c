"""The events of a run, and the sinks that show or keep them."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Protocol

import rich.progress
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Column
from rich.text import Text

from particle_os.errors import printable, whole_line
from particle_os.report.github import unlike_commands
from particle_os.system.gate import Gate
from particle_os.vm.console import ConsoleLog

# Characters of a log file.
LOG_LIMIT = 64 << 20
# Columns of a row of the live view, and of the last line of output below the rows.
ROW_WIDTH, LAST_WIDTH = 56, 79
# apt's summary before it installs packages.
_TO_INSTALL = re.compile(r"^(\d+) upgraded, (\d+) newly installed")


@dataclass(frozen=True)
class PhaseStarted:
    """A step of the whole run begins."""

    phase: str


@dataclass(frozen=True)
class PhaseFinished:
    """A step of the whole run succeeded."""

    phase: str
    seconds: float


@dataclass(frozen=True)
class StageStarted:
    """A stage of the recipe begins; `index` counts from 0."""

    index: int
    total: int
    label: str


@dataclass(frozen=True)
class StageFinished:
    """A stage of the recipe succeeded, in this build or (`cached`) in an earlier one."""

    index: int
    total: int
    label: str
    seconds: float
    cached: bool = False


@dataclass(frozen=True)
class Line:
    """A line that a program printed. The text is untrusted."""

    text: str


@dataclass(frozen=True)
class Note:
    """A remark that the user should read."""

    text: str


@dataclass(frozen=True)
class BootPhase:
    """A machine under test has reached a phase, `seconds` after its start."""

    name: str
    seconds: float


@dataclass(frozen=True)
class LastTime:
    """The last run of this kind took so many seconds."""

    seconds: float


Event = (
    LastTime | PhaseStarted | PhaseFinished | StageStarted | StageFinished | BootPhase | Line | Note
)


class Sink(Protocol):
    """Receives events, and shows or keeps them."""

    def emit(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Progress:
    """Passes events through a gate to its sinks, and measures the seconds of each phase."""

    def __init__(self, sinks: Sequence[Sink], gate: Gate | None = None) -> None:
        self._sinks = list(sinks)
        self.gate = gate or Gate()
        self._lines = self.gate.line_stream()
        # Threads that run programs of the host emit their lines.
        self._lock = threading.Lock()
        self.phases: dict[str, float] = {}
        # When each phase started, in seconds since the first one did.
        self.phase_starts: dict[str, float] = {}
        self._first_start: float | None = None

    def add(self, sink: Sink) -> None:
        self._sinks.append(sink)

    def emit(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Line):
                self._hand_on(map(Line, self._lines.feed(event.text)))
            else:
                self._hand_on([*map(Line, self._lines.flush()), self.gate.hide(event)])

    def _hand_on(self, events: Iterable[Event]) -> None:
        for event in events:
            for sink in self._sinks:
                sink.emit(event)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Announces a step and times it."""
        self.emit(PhaseStarted(name))
        started = time.monotonic()
        if self._first_start is None:
            self._first_start = started
        self.phase_starts[name] = round(started - self._first_start, 3)
        try:
            yield
        finally:
            self.phases[name] = round(time.monotonic() - started, 3)
        self.emit(PhaseFinished(name, self.phases[name]))

    def console_log(self, directory: Path) -> ConsoleLog:
        """The transcript of a machine's console in a directory."""
        return ConsoleLog(directory / "console.log", self.gate)

    def note(self, text: str) -> None:
        self.emit(Note(text))

    def line(self, text: str) -> None:
        self.emit(Line(text))

    def boot_phase(self, name: str, seconds: float) -> None:
        """Announces that a boot has reached a phase, `seconds` after its start."""
        self.emit(BootPhase(name, seconds))

    def close(self) -> None:
        with self._lock:
            self._hand_on(map(Line, self._lines.flush()))
        for sink in self._sinks:
            sink.close()


def _plain(event: Event) -> str | None:
    match event:
        case PhaseStarted(phase):
            return f"{phase} ..."
        case PhaseFinished(phase, seconds):
            return f"{phase}: {seconds:.1f} s"
        case StageStarted(index, total, label):
            return f"  stage {index + 1}/{total} {label} ..."
        case StageFinished(index, total, label, cached=True):
            return f"  stage {index + 1}/{total} {label}: cached"
        case StageFinished(index, total, label, seconds):
            return f"  stage {index + 1}/{total} {label}: {seconds:.1f} s"
        case BootPhase(name, seconds):
            return f"  {name} after {seconds:.1f} s"
        case LastTime(seconds):
            return f"the last time, it took {seconds:.0f} s"
        case Note(text):
            return f"note: {printable(text)}"
        case Line():
            return None


class PlainSink:
    """Prints one line for each event; with `verbose` also the lines of the programs."""

    def __init__(self, stream: IO[str], *, verbose: bool) -> None:
        self._stream = stream
        self._verbose = verbose

    def emit(self, event: Event) -> None:
        text = _plain(event)
        if isinstance(event, Line) and self._verbose:
            text = f"    {printable(event.text)}"
        if text is not None:
            print(whole_line(text), file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class JsonSink:
    """Prints one JSON object on a line for each event: its name and its fields."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def emit(self, event: Event) -> None:
        text = json.dumps({"event": _name(event), **asdict(event)})
        print(unlike_commands(text), file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is open."""


def _name(event: Event) -> str:
    kind = type(event).__name__
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in kind).lstrip("-")


class LogSink:
    """Writes all events to a file, each with the seconds since the start."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._started = time.monotonic()
        self._room = LOG_LIMIT

    def emit(self, event: Event) -> None:
        text = printable(event.text) if isinstance(event, Line) else _plain(event)
        line = f"{time.monotonic() - self._started:8.2f} {text}\n"
        self._room -= len(line)
        # Only the output of programs is limited; all other events reach the file.
        if not self._file.closed and (self._room > 0 or not isinstance(event, Line)):
            self._file.write(line)

    def close(self) -> None:
        self._file.close()


class _Running(rich.progress.Progress):
    """The running steps, each below the step that it is a part of, and the last line of output."""

    def __init__(self, console: Console) -> None:
        # rich draws before it has a console of its own.
        self._terminal = console
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
        # A terminal that gets narrower breaks only rows that are wider than it.
        width = self._terminal.width - 1
        table = self.make_tasks_table(self.tasks)
        table.width = min(width, ROW_WIDTH)
        yield table
        if self.last and len(self.tasks) > 1:
            last = Text(f"    {self.last}", style="dim", no_wrap=True)
            last.truncate(min(width, LAST_WIDTH), overflow="ellipsis")
            yield last


class _Packages:
    """Counts the packages of apt's lines: those that are set up, and all that will be."""

    def __init__(self) -> None:
        self._done, self._total = 0, 0

    def count(self, line: str) -> str:
        """The count after a line, such as "3/12 25 %"; "" without any."""
        if found := _TO_INSTALL.search(line):
            self._done, self._total = 0, int(found[1]) + int(found[2])
        elif line.startswith("Setting up "):
            self._done += 1
        if not 0 < self._done <= self._total:
            return ""
        return f"{self._done}/{self._total} {100 * self._done // self._total} %"


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
        self._packages = _Packages()
        self._running.start()

    def _begin(self, what: str, depth: int) -> rich.progress.TaskID:
        self._running.last = ""
        self._packages = _Packages()
        # A label may contain the brackets of rich's markup.
        return self._running.add_task(escape(f"{'  ' * depth}{what}"), total=None, count="")

    def _end_stage(self) -> None:
        if self._stage is not None:
            self._running.remove_task(self._stage)
        self._stage = None

    def emit(self, event: Event) -> None:
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
        if count := self._packages.count(text):
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

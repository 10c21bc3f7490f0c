"""The events of a run, and the sinks that show or keep them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

from particle_os.errors import printable, whole_line
from particle_os.report.ci.github import unlike_commands
from particle_os.system.gate import Gate
from particle_os.vm.console import ConsoleLog

# Characters of a log file, and those that are left for other events than the output of programs.
LOG_LIMIT, RESERVE = 64 << 20, 1 << 20


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

    def last_time(self, seconds: float) -> None:
        """Announces that the last run of this kind took so long."""
        self.emit(LastTime(seconds))

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
        match event:
            case Line():
                least: int | None = 0
            case Note() | StageStarted() | StageFinished():
                least = -RESERVE
            # The guest causes no other events.
            case _:
                least = None
        if least is None or self._room > least + len(line):
            self._room -= len(line)
            if not self._file.closed:
                self._file.write(line)

    def close(self) -> None:
        self._file.close()

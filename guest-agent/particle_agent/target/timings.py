"""The times of a stage's parts: of each command, and of each package that dpkg handles."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

# The line that dpkg prints when it begins with a package. dpkg prints nothing at the end.
STEP = re.compile(r"(Unpacking|Setting up|Processing triggers for) (\S+) \(")
# A program whose verbs are parts of their own, and a verb.
WITH_VERBS = "ostree"
VERB = re.compile(r"[a-z][a-z-]*")
# The number of parts in a report, and the least seconds of a part.
MOST = 40
LEAST = 0.05


def name_of(argv: Sequence[str]) -> str:
    """The name of the part that runs a command, such as `tar` or `ostree admin deploy`."""
    program = Path(argv[0]).name
    verbs = takewhile(VERB.fullmatch, argv[1:]) if program == WITH_VERBS else ()
    return " ".join([program, *verbs])


class _Steps(threading.local):
    """The current step of each thread. Commands in several threads may run at the same time."""

    now: tuple[str, float] | None = None


class Timings:
    """The seconds of each part, by name. Parts may contain each other or run at the same time."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._steps = _Steps()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time of the context to this part."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._end_step()
            self._add(name, time.monotonic() - began)

    def hear(self, line: str) -> None:
        """Starts a step if this line of a command's output is the start of a step of dpkg."""
        if match := STEP.match(line):
            self._end_step()
            self._steps.now = (f"{match[1]} {match[2]}", time.monotonic())

    def longest(self) -> list[tuple[str, float]]:
        """The names and seconds of the longest parts, the longest first."""
        parts = [(name, s) for name, s in self._seconds.items() if s >= LEAST]
        return sorted(parts, key=lambda part: -part[1])[:MOST]

    def _end_step(self) -> None:
        if self._steps.now is not None:
            name, began = self._steps.now
            self._steps.now = None
            self._add(name, time.monotonic() - began)

    def _add(self, name: str, seconds: float) -> None:
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

"""Where the time of a stage goes: each command that it runs, each package that dpkg handles."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# What dpkg says when it begins with a package; it says nothing at the end.
STEP = re.compile(r"(Unpacking|Setting up|Processing triggers for) (\S+) \(")
# Parts that are told, and the least seconds of one.
MOST = 40
LEAST = 0.05


class _Steps(threading.local):
    """The step under way in each thread: commands that run side by side each have theirs."""

    now: tuple[str, float] | None = None


class Timings:
    """Seconds by the name of the part; parts contain each other, and may run side by side."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._steps = _Steps()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time of the context for this part."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._end_step()
            self._add(name, time.monotonic() - began)

    def hear(self, line: str) -> None:
        """Takes note of a line that a command printed."""
        if match := STEP.match(line):
            self._end_step()
            self._steps.now = (f"{match[1]} {match[2]}", time.monotonic())

    def longest(self) -> list[tuple[str, float]]:
        """The parts that took longest, the longest first."""
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

"""The only clock of the tests. A wait ends with an event; its time limit only ends a hang."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from particle_os.errors import DeadlineExceeded
from particle_os.system.deadline import Deadline

T = TypeVar("T")
# Far longer than any step on a busy machine, and shorter than pytest's time limit for a test.
HANG_SECONDS = 300
POLL_SECONDS = 0.02


def until(condition: Callable[[], T], looks: int | None = None) -> T:
    """Waits until `condition()` is true and returns its value; a hang fails the test.

    So do more than so many `looks`, which limit a wait by its steps: on a busy machine a look waits
    for a processor, as the event does.
    """
    hang = time.monotonic() + HANG_SECONDS
    for look in itertools.count(1):
        if value := condition():
            break
        assert time.monotonic() < hang, f"the event did not come within {HANG_SECONDS} s"
        assert looks is None or look < looks, f"the event did not come within {looks} looks"
        time.sleep(POLL_SECONDS)
    return value


def pause() -> None:
    """Lets a moment pass between two steps of a peer that is slow."""
    time.sleep(POLL_SECONDS)


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def plenty() -> Deadline:
    """A deadline that only ends a hang."""
    return Deadline.after(HANG_SECONDS, "the test")


def moment(what: str = "the test") -> Deadline:
    """A deadline that passes soon, for waits that nothing else ends."""
    return Deadline.after(0.3, what)


class Clock:
    """A stand-in for the module `time` that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def deadline(self, seconds: float, what: str = "the test") -> Deadline:
        return Deadline(what, seconds, self.now + seconds)


@dataclass(frozen=True)
class DeadlineWhen(Deadline):
    """A deadline that passes with an event: as soon as `passed()` is true."""

    what: str = "the test"
    seconds: float = HANG_SECONDS
    at: float = float("inf")
    passed: Callable[[], object] = field(default=lambda: False, kw_only=True)

    def remaining(self) -> float:
        if self.passed():
            raise DeadlineExceeded(f"{self.what} took longer than {self.seconds:.0f} s")
        return HANG_SECONDS

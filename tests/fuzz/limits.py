"""Runs a parser on one input, within a limit of processor time, and names what it does wrong."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

# Of processor time, for one input (docs/promises.md, promise 15).
SECONDS = 1.0
OURS = ("particle_os", "particle_agent")


class TooSlow(BaseException):
    """An input takes too much processor time. No `except Exception` of a parser swallows it."""


@dataclass(frozen=True)
class Defect:
    """An error that no caller of the parser expects: its place in our code, and its traceback."""

    place: str
    text: str


def defect(
    function: Callable[[bytes], None],
    data: bytes,
    allowed: tuple[type[Exception], ...],
    seconds: float = SECONDS,
) -> Defect | None:
    """The defect that `data` shows in `function`; None if it returns or raises what it may."""
    try:
        with _processor_time(seconds):
            function(data)
    except allowed:
        return None
    except (Exception, TooSlow) as error:
        return Defect(_place(error), "".join(traceback.format_exception(error, limit=-12)))
    return None


@contextmanager
def _processor_time(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _place(error: BaseException) -> str:
    """The error's type and the innermost function of ours that it left."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if any(f"/{package}/" in frame.filename for package in OURS)]
    last = (ours or frames)[-1]
    return f"{type(error).__name__} in {last.name} ({Path(last.filename).name}:{last.lineno})"

"""Ending on a signal: by an exception that does not get lost and does not come where it harms.

Python runs a signal's handler between any two steps of the main thread. An exception raised there
can fall into a place that ignores exceptions (a finaliser, a hook that runs at fork), or between
the start of a process and the line that would end it. So places that must not be cut in two hold
signals back, and an exception that was ignored is raised again.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from particle_os.errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_SECONDS = 0.02


class _State:
    """Of the main thread, which alone runs signal handlers."""

    held = 0
    pending: int | None = None
    raised: int | None = None


def install() -> None:
    """From now on the first ending signal raises Interrupted; what follows is ignored.

    A second signal must not cut the cleaning up short.
    """
    _State.held, _State.pending, _State.raised = 0, None, None
    for number in ENDING:
        signal.signal(number, _on_signal)
    signal.signal(signal.SIGALRM, _raise_again)
    sys.unraisablehook = _on_ignored


@contextmanager
def held_back() -> Iterator[None]:
    """Signals wait until the context ends; for short steps of the main thread only."""
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
        if not _State.held:
            _raise()


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _State.pending is not None:
        return
    _State.pending = number
    if not _State.held:
        _raise()


def _raise() -> None:
    if _State.raised is None and _State.pending is not None:
        _State.raised = _State.pending
        raise Interrupted(_State.pending)


def _on_ignored(unraisable: Any) -> None:
    """What Python calls instead of propagating an exception (sys.unraisablehook)."""
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
        return
    # Raised in here it would be ignored too; a moment later it meets ordinary code.
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)


def _raise_again(number: int, frame: FrameType | None) -> None:
    _State.raised = None
    if not _State.held:
        _raise()

"""Ends the program on a signal, by an exception that is neither lost nor raised in a bad place.

Python runs a signal's handler between any two steps of the main thread. An exception in the handler
can be ignored (in a finaliser, or in a hook that runs at fork), or it can separate the start of a
process from the line that would end the process. Therefore code that must not be interrupted holds
signals back, and an ignored exception is raised again.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from particle_os.errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_SECONDS = 0.02


class _State:
    """The state of the main thread, the only thread that runs signal handlers."""

    held = 0
    pending: int | None = None
    raised: int | None = None


def install() -> None:
    """Makes the first ending signal raise Interrupted, and ignores all later signals.

    A second signal must not interrupt the clean-up.
    """
    _State.held, _State.pending, _State.raised = 0, None, None
    for number in ENDING:
        signal.signal(number, _on_signal)
    signal.signal(signal.SIGALRM, _raise_again)
    sys.unraisablehook = _on_ignored


def uninstall() -> None:
    """Gives signals their default effect, or none after the first one: the work is done.

    Interrupted would reach code that does not handle it.
    """
    effect = signal.SIG_DFL if _State.pending is None else signal.SIG_IGN
    for number in ENDING:
        signal.signal(number, effect)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


@contextmanager
def held_back() -> Iterator[None]:
    """Delays signals until the context ends. Only for short steps.

    Other threads than the main thread are never interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
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
    """Handles an exception that Python ignores (sys.unraisablehook)."""
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
        return
    # Python would ignore an exception here, too: raise it a moment later, in ordinary code.
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)


def _raise_again(number: int, frame: FrameType | None) -> None:
    _State.raised = None
    if not _State.held:
        _raise()

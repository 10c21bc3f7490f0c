"""The user's terminal, handed to a program of another machine and got back whole."""

from __future__ import annotations

import os
import subprocess
import termios
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from particle_os.system.interrupt import held_back

# What a guest may have left on: ECMA-48 and xterm's control sequences (soft reset, the other
# screen, reports of the mouse, bracketed paste, a hidden cursor, colours).
RESET = b"\x1b[!p\x1b[?47l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?2004l\x1b[?25h\x1b[0m\r\n"
# Does nothing when it is told a line; at the end of its input, which is ours, it sets the terminal.
GUARD = 'trap "" HUP INT TERM TTOU; read -r line || stty "$1" <&2'


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Every key goes to who reads `descriptor`, as it is, for as long as the context lasts.

    The terminal gets its settings back, even when this process is killed.
    """
    with ExitStack() as stack:
        with held_back():
            before = termios.tcgetattr(descriptor)
            stack.enter_context(_guarded(descriptor))
            stack.callback(_restore, descriptor, before)
            tty.setraw(descriptor)
        yield


def reset(descriptor: int) -> None:
    """Takes back what a guest's control sequences may have changed."""
    with suppress(OSError):
        os.write(descriptor, RESET)


def _restore(descriptor: int, settings: list[object]) -> None:
    # The terminal may be gone; not waiting for its output, which nobody may read.
    with suppress(termios.error):
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)  # type: ignore[arg-type]


@contextmanager
def _guarded(descriptor: int) -> Iterator[None]:
    """A process that sets the terminal back when we are gone without having done so."""
    told = subprocess.run(
        ["stty", "-g"], stdin=descriptor, capture_output=True, text=True, timeout=10, check=True
    )
    guard = subprocess.Popen(
        ["sh", "-c", GUARD, "sh", told.stdout.strip()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=descriptor,
    )
    try:
        yield
    finally:
        with held_back():
            try:
                guard.communicate(b"done\n", timeout=5)
            except subprocess.TimeoutExpired:
                guard.kill()
                guard.wait()

"""Lends the user's terminal to a program of another machine, and restores it."""

from __future__ import annotations

import os
import subprocess
import termios
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from particle_os.system.confinement import environment
from particle_os.system.interrupt import held_back

# Control sequences (ECMA-48, xterm) against modes that a guest may leave on: a soft reset, the
# other screen, mouse reports, bracketed paste, a hidden cursor, colours.
RESET = b"\x1b[!p\x1b[?47l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?2004l\x1b[?25h\x1b[0m\r\n"
# The key by which a user leaves a machine, whatever the machine does.
ESCAPE, ESCAPE_NAME = b"\x1d", "Ctrl-]"
# A line on its input ends the guard; the end of its input, when this process dies, restores the
# terminal first.
GUARD = 'trap "" HUP INT TERM TTOU; read -r line || stty "$1" <&2'


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Passes every key unchanged to the reader of `descriptor` for as long as the context lasts.

    The terminal then gets its settings back, even if this process is killed.
    """
    with ExitStack() as stack:
        with held_back():
            before = termios.tcgetattr(descriptor)
            stack.enter_context(_guarded(descriptor))
            stack.callback(_restore, descriptor, before)
            tty.setraw(descriptor)
        yield


def reset(descriptor: int) -> None:
    """Resets the modes that a guest's control sequences may have changed."""
    with suppress(OSError):
        os.write(descriptor, RESET)


def _restore(descriptor: int, settings: list[object]) -> None:
    # The terminal may be gone. TCSANOW: its output may have no reader to wait for.
    with suppress(termios.error):
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)  # type: ignore[arg-type]


@contextmanager
def _guarded(descriptor: int) -> Iterator[None]:
    """Runs a process that restores the terminal if this process dies before it does so."""
    settings = subprocess.run(
        ["stty", "-g"],
        stdin=descriptor,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
        env=environment({}),
    )
    guard = subprocess.Popen(
        ["sh", "-c", GUARD, "sh", settings.stdout.strip()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=descriptor,
        env=environment({}),
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

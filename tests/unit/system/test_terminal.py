"""The user's terminal is a pseudo-terminal here; what is checked is how it is left."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from particle_os.system import terminal

from ...waiting import HANG_SECONDS, until

KILLED = """
import os, signal
from particle_os.system import terminal
with terminal.raw(0):
    os.write(1, b"raw")
    os.kill(os.getpid(), signal.{signal})
"""


@pytest.fixture
def tty():
    """The program's side of a terminal, and the user's."""
    user, program = pty.openpty()
    yield program, user
    for descriptor in (user, program):
        try:
            os.close(descriptor)
        except OSError:
            pass


def test_keys_come_as_they_are_and_the_settings_come_back(tty):
    program, user = tty
    before = termios.tcgetattr(program)
    with terminal.raw(program):
        assert not termios.tcgetattr(program)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        os.write(user, b"\x03\x1a\r")
        assert [os.read(program, 1) for _ in range(3)] == [b"\x03", b"\x1a", b"\r"]
    assert termios.tcgetattr(program) == before


def test_no_program_is_left_that_guards_the_terminal(tty, monkeypatch):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    with terminal.raw(tty[0]):
        guard = started[-1]
        assert guard.poll() is None
    assert guard.returncode == 0


def test_the_settings_come_back_after_an_error(tty):
    program, _ = tty
    before = termios.tcgetattr(program)
    with pytest.raises(KeyError):
        with terminal.raw(program):
            raise KeyError
    assert termios.tcgetattr(program) == before


def test_a_terminal_that_goes_away_is_no_error(tty):
    program, user = tty
    with terminal.raw(program):
        os.close(user)
    terminal.reset(program)
    # A child that is being started elsewhere may have the other side for a moment.
    assert until(lambda: not answers(program))


def answers(descriptor):
    try:
        termios.tcgetattr(descriptor)
    except termios.error:
        return False
    return True


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSEGV"])
def test_the_settings_come_back_when_we_are_killed(tty, signal):
    program, user = tty
    before = termios.tcgetattr(program)
    code = KILLED.format(signal=signal)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=program, stdout=program)
    assert os.read(user, 3) == b"raw"
    assert process.wait(HANG_SECONDS) < 0
    until(lambda: termios.tcgetattr(program) == before)


def test_what_a_guest_left_on_is_taken_back(tty):
    program, user = tty
    terminal.reset(program)
    said = os.read(user, 200)
    assert b"\x1b[?25h" in said, "the cursor is seen"
    assert b"\x1b[?47l" in said, "on the first screen"


def test_a_terminal_whose_settings_are_unknown_is_not_lent(tty, tmp_path, monkeypatch):
    (tmp_path / "stty").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "stty").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(subprocess.CalledProcessError), terminal.raw(tty[0]):
        pass


def test_the_guard_of_the_terminal_has_no_secret(tty, monkeypatch):
    """It lives as long as the shell of the user."""
    monkeypatch.setenv("TOKEN", "canary")
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    with terminal.raw(tty[0]):
        # The file is empty for a moment after execve(2) has closed the parent's pipe.
        found = until(Path(f"/proc/{started[-1].pid}/environ").read_bytes)
    assert b"PATH=" in found
    assert b"TOKEN" not in found

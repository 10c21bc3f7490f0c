"""Runs commands in a booted image, through the probe that has answered and waits for orders."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from particle_os.recipe.checks.questions import escaped
from particle_os.system.deadline import Deadline
from particle_os.vm.chardev import Chardev
from particle_os.vm.machine import Machine

COMMAND_BYTES = 1 << 20
COMMAND_SECONDS = 120
# The time that the probe itself needs around a command, beside two limits of two seconds.
GRACE_SECONDS = 20.0
POLL_SECONDS = 0.02
# A line of a terminal in canonical mode has 4095 characters (termios(3)).
LINE_CHARACTERS = 3500
TAKEN = re.compile(rb"^taken:(\d+)\r?$", re.MULTILINE)
RAN = re.compile(
    rb"^ran:(\d+) ([A-Za-z0-9+/=]*) ([A-Za-z0-9+/=]*) (\d{1,3}|late)\r?$", re.MULTILINE
)


class NotRun(Exception):
    """A command has no result; the text says why."""


@dataclass(frozen=True)
class Ran:
    """The exit status of a command, up to 1 MiB of its output and 64 KiB of its errors."""

    status: int
    stdout: bytes
    stderr: bytes


class ImageShell:
    """Gives commands to the shell of a booted image, one after the other; they run as root.

    `factor` multiplies the time limits. A probe that misses one is asked for nothing more.
    """

    def __init__(self, machine: Machine, answer: Chardev, factor: float) -> None:
        self._machine = machine
        self._answer = answer
        self._factor = factor
        self._number = 0
        self._silent = False

    def run(self, command: bytes, deadline: Deadline) -> Ran:
        """Runs a command of the shell, without input.

        Raises NotRun, DeadlineExceeded, and QemuEnded when the machine has ended.
        """
        if len(command) > COMMAND_BYTES:
            raise NotRun(f"the command is longer than {COMMAND_BYTES} bytes")
        grace = GRACE_SECONDS * self._factor
        for line in pieces(command):
            self._ask("put", line, TAKEN, grace, deadline)
        seconds = int(COMMAND_SECONDS * self._factor)
        found = self._ask("run", str(seconds), RAN, seconds + grace, deadline)
        if found[4] == b"late":
            raise NotRun(f"the command took longer than {seconds} s")
        return decoded(found)

    def wait(self, seconds: float) -> None:
        """Reads the console: a guest blocks when nothing reads its output. Raises QemuEnded."""
        self._machine.console.read(seconds)

    def _ask(
        self, order: str, text: str, pattern: re.Pattern[bytes], seconds: float, deadline: Deadline
    ) -> re.Match[bytes]:
        """Gives an order, and returns its answer, which may take `seconds`."""
        deadline.remaining()
        if self._silent:
            raise NotRun("the image no longer answers")
        limit = deadline.sooner(seconds, "the image's answer")
        self._number += 1
        self._answer.forget()
        self._answer.send(f"{order} {self._number} {text}\n".encode())
        while True:
            data = self._answer.data
            # A long line that is still on its way is not searched again and again.
            for found in pattern.finditer(data) if data.endswith(b"\n") else ():
                if int(found[1]) == self._number:
                    return found
            if time.monotonic() >= limit.at:
                self._silent = True
                deadline.remaining()
                raise NotRun(f"the image has not answered within {seconds:.0f} s")
            self.wait(POLL_SECONDS)


def decoded(found: re.Match[bytes]) -> Ran:
    """Returns the result in an answer, a match of RAN. Raises NotRun when it is damaged."""
    try:
        return Ran(int(found[4]), base64.b64decode(found[2]), base64.b64decode(found[3]))
    except ValueError:
        raise NotRun("the image's answer is damaged") from None


def pieces(command: bytes) -> Iterator[str]:
    """Yields a command as lines for `printf %b`; no line ends within an escape."""
    line = ""
    for byte in command:
        text = escaped(bytes([byte]))
        if len(line) + len(text) > LINE_CHARACTERS:
            yield line
            line = ""
        line += text
    yield line

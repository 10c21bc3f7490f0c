"""Runs the user's tests for pytest-testinfra on the host, against a booted image.

pytest is a process of its own (see `pytest_run`). It asks for commands over a socket, and the image
runs them. So the image needs no SSH server, no key and no open port.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from particle_os.boot.frameworks.image_shell import COMMAND_BYTES, ImageShell, NotRun
from particle_os.boot.observation.verdict import CheckResult
from particle_os.errors import InfrastructureError, printable
from particle_os.system import process
from particle_os.system.confinement import GIB, Confinement
from particle_os.system.deadline import Deadline

NAME = "testinfra"
OUTPUT = "pytest.txt"
# A command comes in base64.
MESSAGE_BYTES = 2 * COMMAND_BYTES
POLL_MILLISECONDS = 50
END_SECONDS = 30.0
TAIL_BYTES, TAIL_LINES = 16384, 20
# The exit codes of pytest (https://docs.pytest.org/en/stable/reference/exit-codes.html).
PASSED, FAILED, INTERRUPTED, NO_TESTS = 0, 1, 2, 5
# -P: no file beside the tests takes the place of a module of ours.
RUN = (sys.executable, "-P", "-m", "particle_os.boot.frameworks.pytest_run")
# The tests are the user's own program, which the user has started by an option.
USERS_OWN = Confinement(reads=(Path("/"),), writes=(Path("/"),), tcp="any", memory=16 * GIB)


def is_installed() -> bool:
    """Whether pytest-testinfra is installed beside particle-os."""
    try:
        import testinfra  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        return False
    return True


def results(
    tests: Path, shell: ImageShell, directory: Path, deadline: Deadline
) -> Iterator[CheckResult]:
    """Yields the result of each test in `tests`, as it ends; `directory` is private.

    Raises InfrastructureError when pytest itself fails, DeadlineExceeded, and QemuEnded when the
    machine has ended.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, (directory / OUTPUT).open("wb") as output:
        with process.started(
            [*RUN, tests],
            within=USERS_OWN,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=theirs.fileno(),
            stdout=output,
            directory=tests if tests.is_dir() else tests.parent,
        ) as child:
            theirs.close()
            found, ended = [], None
            for message in _messages(ours, shell, deadline):
                if "run" in message:
                    _send(ours, _answer(message["run"], shell, deadline), deadline)
                elif "end" in message:
                    ended = message["end"]
                    break
                else:
                    found.append(_check(**message))
                    yield found[-1]
            _wait(child, deadline)
        yield from _judged(ended, found, directory / OUTPUT)


def _messages(
    connection: socket.socket, shell: ImageShell, deadline: Deadline
) -> Iterator[dict[str, Any]]:
    """Yields the messages of pytest, one JSON object a line, until it closes the connection."""
    received = b""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while True:
        deadline.remaining()
        shell.wait(0)
        if not poll.poll(POLL_MILLISECONDS):
            continue
        try:
            data = connection.recv(1 << 16)
        except ConnectionError:
            return
        if not data:
            return
        *lines, received = (received + data).split(b"\n")
        if len(received) > MESSAGE_BYTES:
            raise InfrastructureError(f"a command of a test exceeds {COMMAND_BYTES} bytes")
        yield from map(json.loads, lines)


def _answer(command: str, shell: ImageShell, deadline: Deadline) -> bytes:
    """Runs a command in the image, and returns the message with its result."""
    try:
        ran = shell.run(base64.b64decode(command), deadline)
    except NotRun as error:
        return json.dumps({"error": str(error)}).encode() + b"\n"
    out, err = (base64.b64encode(data).decode() for data in (ran.stdout, ran.stderr))
    return json.dumps({"status": ran.status, "out": out, "err": err}).encode() + b"\n"


def _send(connection: socket.socket, message: bytes, deadline: Deadline) -> None:
    """Sends a message to pytest, which may have ended or may not read."""
    connection.settimeout(deadline.remaining())
    with suppress(OSError):
        connection.sendall(message)


def _check(test: str, passed: bool, detail: str) -> CheckResult:
    shown = printable(detail.strip().replace("\n", " / "))
    return CheckResult(name=printable(f"{NAME} {test}", 200), passed=passed, detail=shown)


def _wait(child: subprocess.Popen[bytes], deadline: Deadline) -> None:
    """Gives pytest a moment to end; the end of its context ends it anyway."""
    try:
        process.wait(child, min(END_SECONDS, deadline.remaining()))
    except subprocess.TimeoutExpired:
        pass


def _judged(status: int | None, found: list[CheckResult], output: Path) -> Iterator[CheckResult]:
    """Yields a failed result when no test says why pytest's exit code is `status`."""
    if status == NO_TESTS:
        yield _failed("there is no test; pytest looks for functions test_* in files test_*.py")
    elif status in (FAILED, INTERRUPTED):
        if all(each.passed for each in found):
            yield _failed(f"pytest ended with {status}, but no test failed")
    elif status != PASSED:
        raise InfrastructureError(
            f"pytest failed (status {'unknown' if status is None else status})",
            hint="Run pytest on the tests by hand: they or their configuration are wrong.",
            tail=_tail(output),
        )


def _failed(detail: str) -> CheckResult:
    return CheckResult(name=NAME, passed=False, detail=detail)


def _tail(output: Path) -> list[str]:
    with output.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        lines = file.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()
    return [printable(line, 200) for line in lines if line.strip()][-TAIL_LINES:]

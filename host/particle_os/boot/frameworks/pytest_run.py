"""Runs pytest-testinfra for `testinfra`: python -m particle_os.boot.frameworks.pytest_run TESTS.

Standard input is a socket to the boot test. Each message is a JSON object on a line: a command for
the image (which the boot test answers), the result of a test, or pytest's exit code.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import socket
import sys
from typing import Any

import pytest
from testinfra import backend  # type: ignore[import-untyped]
from testinfra.backend.base import BaseBackend, CommandResult  # type: ignore[import-untyped]

CONNECTION = "particle-os"
DESCRIPTOR = "PARTICLE_OS_TESTS"
HOST = "image"
DETAIL_CHARACTERS = 4000


class BootTestLink:
    """The connection to the boot test."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")

    def tell(self, **message: object) -> None:
        """Sends a message that has no answer."""
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def run(self, command: bytes) -> dict[str, Any]:
        """Lets the image run a command of the shell. Raises RuntimeError when it has no result."""
        self.tell(run=base64.b64encode(command).decode())
        answer: dict[str, Any] = json.loads(self._lines.readline() or b'{"error": "it is over"}')
        if "error" in answer:
            raise RuntimeError(f"the image did not run a command: {answer['error']}")
        return answer


@functools.cache
def link() -> BootTestLink:
    """The connection; pytest replaces standard input while it collects and runs tests."""
    return BootTestLink(socket.socket(fileno=int(os.environ[DESCRIPTOR])))


class ImageBackend(BaseBackend):  # type: ignore[misc]
    """Runs testinfra's commands in the image."""

    NAME = CONNECTION

    def get_pytest_id(self) -> str:
        return HOST

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        words = self.encode(self.get_command(command, *args))
        done = link().run(words)
        out, err = (base64.b64decode(done[name]) for name in ("out", "err"))
        return self.result(done["status"], words, out, err)


class ResultReporter:
    """Sends the result of each test, when all of it has run."""

    def __init__(self) -> None:
        self._faults: dict[str, str] = {}
        self._skipped: dict[str, str] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            last = report.longreprtext.strip().splitlines() or [""]
            link().tell(test=report.nodeid, passed=False, detail=f"not collected: {last[-1]}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._faults.setdefault(report.nodeid, _reason(report))
        elif report.skipped:
            self._skipped[report.nodeid] = _reason(report)
        if report.when == "teardown":
            self._tell(report.nodeid)

    def _tell(self, test: str) -> None:
        fault, skipped = self._faults.pop(test, None), self._skipped.pop(test, None)
        detail = fault or (f"skipped: {skipped}" if skipped is not None else "")
        name = test.replace(f"[{HOST}]", "")
        link().tell(test=name, passed=fault is None, detail=detail[:DETAIL_CHARACTERS])


def _reason(report: pytest.TestReport) -> str:
    """The reason of a test that has failed, or that has been skipped."""
    if hasattr(report, "wasxfail"):
        return f"fails as expected {report.wasxfail}".strip()
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash is not None else report.longreprtext[-1000:]


def main(tests: str) -> int:
    """Runs the tests, and returns pytest's exit code."""
    backend.BACKENDS[CONNECTION] = f"{ImageBackend.__module__}.{ImageBackend.__qualname__}"
    os.environ[DESCRIPTOR] = str(os.dup(0))
    # Programs that the tests leave behind must not hold the connection.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Nothing is written beside the tests. Workers of pytest-xdist would not have the connection.
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", f"--hosts={CONNECTION}://{HOST}"]
    status = int(pytest.main([*options, "--", tests], plugins=[ResultReporter()]))
    link().tell(end=status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

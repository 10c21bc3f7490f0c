"""Runs pytest-testinfra for `testinfra`: python -m particle_os.boot.frameworks.pytest_run TESTS.

Standard input is a socket to the boot test. Each message is a JSON object on a line: a command for
the image (which the boot test answers), the result of a test, or pytest's exit code.
"""

from __future__ import annotations

import os
import sys

import pytest

from particle_os.boot.frameworks.boot_test_link import DESCRIPTOR, link

# testinfra's name for the connection, and pytest's for the image.
CONNECTION, HOST = "particle-os", "image"
BACKEND = "particle_os.boot.frameworks.image_backend.ImageBackend"
DETAIL_CHARACTERS = 4000


class ResultReporter:
    """Sends the result of each test, when all of it has run."""

    def __init__(self) -> None:
        self._faults: dict[str, str] = {}
        self._skipped: dict[str, str] = {}

    def pytest_configure(self) -> None:
        # Not earlier: pytest rewrites the assertions of a plugin while it is imported.
        from testinfra import backend  # type: ignore[import-untyped]

        backend.BACKENDS[CONNECTION] = BACKEND

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

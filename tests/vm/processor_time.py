"""Sums up the processor time of each VM test: it decides how long the suite takes.

How long a test takes by the clock depends on what runs beside it.
"""

from __future__ import annotations

import resource
from collections.abc import Generator
from typing import Any

import pytest

NAME = "processor seconds"
SHOWN = 25


class ProcessorTime:
    """A plugin of pytest. The processes of a test count when they have ended."""

    def __init__(self) -> None:
        self._before = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Notes the time since the last test in the report of the teardown."""
        report = yield
        if report.when == "teardown":
            now, before = _spent(), self._before
            self._before = now
            report.user_properties.append((NAME, now - before))
        return report

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Lists the tests that have used most, and the sum of all."""
        reports = [report for kind in terminalreporter.stats.values() for report in kind]
        spent = {
            report.nodeid: dict(report.user_properties)[NAME]
            for report in reports
            if getattr(report, "when", None) == "teardown"
        }
        if not spent:
            return
        terminalreporter.section(f"{NAME}: {sum(spent.values()):.0f}")
        for name in sorted(spent, key=lambda name: -spent[name])[:SHOWN]:
            terminalreporter.write_line(f"{spent[name]:7.1f} {name}")


def _spent() -> float:
    """The processor time of all children that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

"""A plugin for pytest: runs chosen tests in a given order, and writes what they do to files.

The variables MUTANTS_ONLY (a JSON list of tests), MUTANTS_OUTCOMES and MUTANTS_LINES name files.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

Lines = dict[str, list[int]]


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Starts before pytest imports a module of the packages."""
    only, outcomes, lines = (
        os.environ.pop(f"MUTANTS_{name}", "") for name in ("ONLY", "OUTCOMES", "LINES")
    )
    manager = early_config.pluginmanager
    if only:
        manager.register(Chosen(json.loads(Path(only).read_text())))
    if outcomes:
        manager.register(Outcomes(Path(outcomes)))
    if lines:
        manager.register(LineRecord(Path(lines), Path.cwd(), ("host", "guest-agent")))


class Chosen:
    """Runs these tests only, in this order."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = {item.nodeid: item for item in items}
        if missing := [name for name in self.names if name not in found]:
            raise pytest.UsageError(f"there is no test {missing[0]}")
        items[:] = [found[name] for name in self.names]


class Outcomes:
    """Writes a line for each test that ends, and the status of pytest when all have ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failures: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failures[report.nodeid] = str(report.longrepr)
        if report.when == "teardown":
            failure = self.failures.get(report.nodeid)
            # The words of pytest-timeout.
            hangs = failure is not None and "Failed: Timeout" in failure
            self._write({"test": report.nodeid, "failed": failure is not None, "hangs": hangs})

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._write({"finished": int(exitstatus)})

    def _write(self, record: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


class LineRecord:
    """Writes which lines of the packages each test runs; those of no test have the name ''.

    coverage.py sees this process and its threads. Children that only fork note their lines in
    memory that they share with this process, since they end by exec or os._exit.
    """

    def __init__(self, path: Path, tree: Path, folders: Iterable[str]) -> None:
        self.path, self.tree = path, tree
        roots = [tree / folder for folder in folders]
        self.files = [str(file) for root in roots for file in sorted(root.rglob("*.py"))]
        self.children = Children(self.files)
        self.forked: dict[str, dict[str, set[int]]] = {}
        import coverage  # The runs of mutants save its time.

        self.coverage = coverage.Coverage(
            data_file=None, config_file=False, include=[f"{root}/*" for root in roots]
        )
        self.coverage.start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.coverage.switch_context("")
            self.forked[item.nodeid] = self.children.taken()

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        data = self.coverage.get_data()
        found: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        for file in data.measured_files():
            for line, tests in data.contexts_by_lineno(file).items():
                for test in tests:
                    found[test][file].add(line)
        for test, lines in self.forked.items():
            for file, numbers in lines.items():
                found[test][file] |= numbers
        self.path.write_text(json.dumps({test: self._named(ls) for test, ls in found.items()}))

    def _named(self, lines: dict[str, set[int]]) -> Lines:
        return {str(Path(f).relative_to(self.tree)): sorted(ns) for f, ns in lines.items()}


class Children:
    """The lines that forked children run, one byte for each line of the files."""

    def __init__(self, files: list[str]) -> None:
        self.starts: dict[str, int] = {}
        size = 0
        for file in files:
            self.starts[file] = size
            size += len(Path(file).read_bytes().splitlines()) + 1
        self.seen = mmap.mmap(-1, max(size, 1))
        os.register_at_fork(after_in_child=self._trace)

    def taken(self) -> dict[str, set[int]]:
        """The lines since the last call."""
        found: dict[str, set[int]] = {}
        if b"\1" not in (seen := self.seen[:]):
            return found
        ends = [*list(self.starts.values())[1:], len(seen)]
        for (file, start), end in zip(self.starts.items(), ends, strict=True):
            if b"\1" in seen[start:end]:
                found[file] = {n for n, byte in enumerate(seen[start:end]) if byte}
        self.seen[:] = bytes(len(seen))
        return found

    def _trace(self) -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            frame.f_trace = self._event(frame, "fork", None)
            frame = frame.f_back
        sys.settrace(self._event)
        threading.settrace(self._event)

    def _event(self, frame: FrameType, event: str, _: Any) -> Any:
        start = self.starts.get(frame.f_code.co_filename)
        if start is None:
            return None
        if event == "line":
            self.seen[start + frame.f_lineno] = 1
        return self._event

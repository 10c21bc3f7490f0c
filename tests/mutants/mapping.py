"""The map of the tests that run each line, from a run of all tests without a mutant."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .project import Project
from .walls import Runner

PYTEST = [
    "-m", "pytest", "-q", "-p", "tests.mutants.plugin", "-p", "no:cacheprovider",
    "-p", "no:xdist", "-m", "not slow",
]  # fmt: skip
# pytest's status when all tests of the files are slow.
NO_TESTS = 5
# So many files of tests run in one process; what is mapped is kept then.
GROUP, GROUP_SECONDS = 12, 3600
# Of the tests, how many may fail within the walls without a mutant: some want what is outside.
MOST_FAILING = 0.03
# So many of the tests that run a line are tried, the nearest first.
MOST_TESTS = 400


@dataclass
class CoverageMap:
    """The tests that run each line. Tests that fail without a mutant are no part of it."""

    by_line: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    # Those that run any line of a file, with the number of lines.
    by_file: dict[str, dict[str, int]] = field(default_factory=dict)
    # The lines that run when a module is imported.
    imported: dict[str, set[int]] = field(default_factory=dict)
    # The tests that read the sources.
    reading: list[str] = field(default_factory=list)
    failing: list[str] = field(default_factory=list)
    tests: int = 0

    def tests_of(self, path: str, line: int) -> list[str]:
        """The tests that may notice a fault in the line, the nearest first."""
        found = self.by_line.get(path, {}).get(line, set())
        if not found and line in self.imported.get(path, ()):
            found = set(self.by_file.get(path, ()))
        counts = self.by_file.get(path, {})
        folder = "/" + "/".join(path.split("/")[2:-1]) + "/"
        own = f"/test_{Path(path).stem}.py"

        def distance(test: str) -> tuple[bool, bool, int, str]:
            return own not in test, folder not in test, -counts.get(test, 0), test

        return sorted(found, key=distance)[:MOST_TESTS]


def coverage_map(project: Project, work: Path, cache: Path, run: Runner) -> CoverageMap:
    """The map of the tree in `work`/pristine. Only test files that `cache` does not have are run.

    Ends the program if the run is incomplete: what the map lacks would count as not tested.
    """
    pristine = work / "pristine"
    cache.mkdir(parents=True, exist_ok=True)
    keys = project.keys(pristine)
    missing = [name for name, key in keys.items() if not (cache / key).exists()]
    for start in range(0, len(missing), GROUP):
        print(f"the map lacks {len(missing) - start} files of tests", flush=True)
        for name, record in _recorded(missing[start : start + GROUP], work, run).items():
            (cache / keys[name]).write_text(json.dumps(record))
    found = CoverageMap()
    for name, key in keys.items():
        record = json.loads((cache / key).read_text())
        _add(found, record)
        found.reading += record["tests"] if name in project.reading else ()
    if len(found.failing) > MOST_FAILING * found.tests:
        tests = "\n  ".join(found.failing)
        sys.exit(f"too many tests fail without a mutant:\n  {tests}")
    return found


def outcomes_in(path: Path) -> list[dict[str, Any]]:
    """The outcomes that the plugin has written."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _recorded(names: list[str], work: Path, run: Runner) -> dict[str, dict[str, Any]]:
    """Runs these files of tests. Returns, for each file, its tests that fail and the lines."""
    place = Path(tempfile.mkdtemp(prefix="map-", dir=work))
    shutil.copytree(work / "pristine", place / "tree", symlinks=True)
    outcomes, lines = place / "outcomes", place / "lines"
    env = {"MUTANTS_OUTCOMES": str(outcomes), "MUTANTS_LINES": str(lines)}
    ended = run(place, [*PYTEST, "-rfE", "--timeout", "120", *names], env, GROUP_SECONDS)
    said = outcomes_in(outcomes)
    if (
        ended.status not in (0, 1, NO_TESTS)
        or {"finished": ended.status} not in said
        or not lines.exists()
    ):
        tail = "\n".join(ended.output.splitlines()[-30:])
        how = "did not end" if ended.status is None else f"ended with the status {ended.status}"
        sys.exit(f"the tests without a mutant {how}, so the map is incomplete:\n{tail}")
    by_test = json.loads(lines.read_text())
    records: dict[str, dict[str, Any]] = {
        name: {"failed": [], "tests": {}, "imported": by_test.get("", {})} for name in names
    }
    for outcome in said:
        if test := outcome.get("test"):
            record = records[test.partition("::")[0]]
            if outcome["failed"]:
                record["failed"].append(test)
            else:
                record["tests"][test] = by_test.get(test, {})
    return records


def _add(found: CoverageMap, record: dict[str, Any]) -> None:
    found.failing += record["failed"]
    found.tests += len(record["tests"]) + len(record["failed"])
    for path, numbers in record["imported"].items():
        found.imported.setdefault(path, set()).update(numbers)
    for test, files in record["tests"].items():
        for path, numbers in files.items():
            found.by_file.setdefault(path, {})[test] = len(numbers)
            by_line = found.by_line.setdefault(path, defaultdict(set))
            for number in numbers:
                by_line[number].add(test)

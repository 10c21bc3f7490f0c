"""Measures what the tests notice: `python -m tests.mutants --help`.

A mutant is a copy of the tree with one small fault in one of the two packages. It survives when all
tests pass that run its line. Kept tools run the product's code without a boundary; a mutant of this
project may delete files or signal processes. So each mutant runs in namespaces without a network
and without other processes (unshare(1)), under Landlock, and writes to its own copy only.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .mapping import CoverageMap, coverage_map
from .planting import Mutant, mutants
from .project import Project
from .trial import Laboratory, Verdict
from .walls import check_walls, confined


@dataclass(frozen=True)
class Results:
    """A file with a line for each mutant that has been tried."""

    path: Path

    def records(self) -> list[dict[str, Any]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [json.loads(line) for line in lines]

    def add(self, record: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def possible(project: Project, tree: Path, found: CoverageMap) -> tuple[list[Mutant], int]:
    """The mutants in lines that tests run, and the number of the others."""
    runnable, others = [], 0
    for path in project.sources(tree):
        for mutant in mutants(path, (tree / path).read_bytes()):
            if found.tests_of(path, mutant.line):
                runnable.append(mutant)
            else:
                others += 1
    return runnable, others


def sample(mutants: list[Mutant], seed: int, first: int, number: int) -> list[Mutant]:
    shuffled = sorted(mutants, key=lambda mutant: mutant.name)
    random.Random(seed).shuffle(shuffled)
    return shuffled[first - 1 : first - 1 + number]


def tried(
    chosen: Iterable[Mutant], found: CoverageMap, laboratory: Laboratory, jobs: int
) -> Iterator[tuple[Mutant, Verdict]]:
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(laboratory.verdict, m, found.tests_of(m.path, m.line)): m for m in chosen
        }
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()


def summary(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A line for each package and for both, and the mutants that could not be judged."""
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        for part in (record["path"].partition("/")[0], "both"):
            counts[part, record["word"]] += 1
    for part in sorted({part for part, _ in counts}, key=lambda p: (p == "both", p)):
        noticed, survived = counts[part, "noticed"], counts[part, "survived"]
        share = 100 * noticed / max(noticed + survived, 1)
        yield f"{part}: {noticed} of {noticed + survived} noticed, {share:.1f} %"
    if broken := counts["both", "broken"]:
        yield f"{broken} not judged: their tests fail without a mutant, too"


def campaign(project: Project, work: Path, arguments: argparse.Namespace) -> int:
    check_walls(work, confined)
    pristine = work / "pristine"
    project.copy_to(pristine)
    found = coverage_map(project, work, arguments.out / "map", confined)
    print(f"{found.tests} tests; {len(found.failing)} fail without a mutant: {found.failing}")
    runnable, others = possible(project, pristine, found)
    print(f"{len(runnable)} mutants in lines that tests run, {others} in others", flush=True)
    results = Results(arguments.out / f"results-{arguments.seed}")
    if arguments.again:
        names = {r["name"] for r in results.records() if r["word"] != "noticed"}
        chosen = [mutant for mutant in runnable if mutant.name in names]
        results = Results(arguments.out / f"again-{arguments.seed}")
    else:
        chosen = [m for m in runnable if arguments.only in m.path]
        chosen = sample(chosen, arguments.seed, arguments.first, arguments.number)
    before = {record["name"]: record for record in results.records()}
    _compile(pristine, work)
    left = [mutant for mutant in chosen if mutant.name not in before]
    print(f"{len(chosen)} chosen, {len(chosen) - len(left)} of them tried before", flush=True)
    for mutant, verdict in tried(left, found, Laboratory(work, confined), arguments.jobs):
        diff = mutant.diff((pristine / mutant.path).read_bytes())
        record = {"path": mutant.path, "line": mutant.line, "word": verdict.word}
        record |= {"by": verdict.by, "name": mutant.name, "diff": diff}
        results.add(record)
        before[mutant.name] = record
        if verdict.word != "noticed":
            print(f"{verdict.word}: {mutant.path}:{mutant.line} {verdict.by}\n{diff}", flush=True)
    records = [before[mutant.name] for mutant in chosen]
    print("\n".join(summary(records)))
    return 1 if any(record["word"] == "broken" for record in records) else 0


def _compile(pristine: Path, work: Path) -> None:
    """Compiles all modules, once for all mutants."""
    place = work / "compiled"
    place.mkdir()
    shutil.move(pristine, place / "tree")
    argv = [
        "-m",
        "pytest",
        "-q",
        "--collect-only",
        "-p",
        "no:cacheprovider",
        "tests/unit",
        "tests/guest",
    ]
    ended = confined(place, argv, {}, 600)
    shutil.move(place / "tree", pristine)
    if ended.status != 0:
        sys.exit(f"the tests cannot be collected: {ended.output}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="of the sample of the seed")
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    parser.add_argument("--again", action="store_true", help="those that have survived before")
    parser.add_argument("--out", type=Path, default=Path("out/mutants"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(
        prefix="particle-os-mutants-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as name:
        return campaign(Project(), Path(name), arguments)


if __name__ == "__main__":
    sys.exit(main())

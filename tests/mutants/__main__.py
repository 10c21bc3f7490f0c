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
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .mapping import CoverageMap, coverage_map
from .planting import Mutant, mutants
from .project import Project
from .trial import Laboratory, Verdict
from .walls import check_walls, confined

COMPILE_SECONDS = 1800


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


def all_mutants(project: Project, tree: Path, seed: int) -> list[Mutant]:
    """All mutants of the packages, in the order of the seed."""
    found = [m for path in project.sources(tree) for m in mutants(path, (tree / path).read_bytes())]
    random.Random(seed).shuffle(found)
    return found


def tried(
    chosen: Iterable[Mutant], found: CoverageMap, laboratory: Laboratory, jobs: int
) -> Iterator[tuple[Mutant, Verdict]]:
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(laboratory.verdict, m, found.tests_of(m.path, m.line), found.reading): m
            for m in chosen
        }
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()


def summary(records: Iterable[dict[str, Any]], failing: Collection[str]) -> Iterator[str]:
    """A line for each package and for both, and the mutants that could not be judged.

    `failing` are the tests that fail without a mutant.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        for part in (record["path"].partition("/")[0], "both"):
            counts[part, "broken" if record["by"] in failing else record["word"]] += 1
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
    everything = all_mutants(project, pristine, arguments.seed)
    chosen = [m for m in everything if arguments.only in m.path and found.tests_of(m.path, m.line)]
    print(f"{len(chosen)} of {len(everything)} mutants are in lines that tests run", flush=True)
    results = Results(arguments.out / f"results-{arguments.seed}")
    if arguments.again:
        names = {r["name"] for r in results.records() if r["word"] != "noticed"}
        chosen = [mutant for mutant in chosen if mutant.name in names]
        results = Results(arguments.out / f"again-{arguments.seed}")
    else:
        chosen = chosen[arguments.first - 1 : arguments.first - 1 + arguments.number]
    before = {record["name"]: record for record in results.records()}
    _compile(project, work)
    left = [mutant for mutant in chosen if mutant.name not in before]
    print(f"{len(chosen)} chosen, {len(chosen) - len(left)} of them tried before", flush=True)
    laboratory = Laboratory(work, confined)
    laboratory.learn_types()
    if not laboratory.types:
        print("mypy fails without a mutant, so it judges none", flush=True)
    for mutant, verdict in tried(left, found, laboratory, arguments.jobs):
        diff = mutant.diff((pristine / mutant.path).read_bytes())
        record = {"path": mutant.path, "line": mutant.line, "word": verdict.word}
        record |= {"by": verdict.by, "name": mutant.name, "diff": diff}
        results.add(record)
        before[mutant.name] = record
        if verdict.word != "noticed":
            print(f"{verdict.word}: {mutant.path}:{mutant.line} {verdict.by}\n{diff}", flush=True)
    records = [before[mutant.name] for mutant in chosen]
    known = {test for tests in found.by_file.values() for test in tests}
    noticing = {r["by"] for r in records if r["word"] == "noticed"} & known
    print("\n".join(summary(records, laboratory.failing(noticing))))
    return 0


def _compile(project: Project, work: Path) -> None:
    """Compiles all modules, once for all mutants."""
    place = work / "compiled"
    place.mkdir()
    (work / "pristine").rename(place / "tree")
    argv = ["-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *project.tests]
    ended = confined(place, argv, {}, COMPILE_SECONDS)
    (place / "tree").rename(work / "pristine")
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

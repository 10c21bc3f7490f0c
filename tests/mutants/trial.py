"""The verdict of the tests on one mutant."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .mapping import PYTEST, outcomes_in
from .planting import Mutant
from .walls import Runner

# A test that hangs fails after this time.
TEST_SECONDS = 60
ALL_SECONDS = 600
# The nearest tests run first: a process for them needs few modules.
NEAREST = 30
MYPY = ["-m", "mypy", "--sqlite-cache", "--cache-dir"]


@dataclass(frozen=True)
class Verdict:
    """Whether a mutant is noticed, and the test that fails.

    "broken" says nothing about the mutant: the same tests fail without it.
    """

    word: Literal["noticed", "survived", "broken"]
    by: str = ""


@dataclass
class Laboratory:
    """Runs tests on copies of `work`/pristine.

    With `types` also mypy reads each mutant, after `learn_types`.
    """

    work: Path
    run: Runner
    types: bool = False

    def learn_types(self) -> None:
        """Runs mypy without a mutant; each later run reads only what a mutant changes."""
        self.types = self._mypy(None) == 0

    def verdict(self, mutant: Mutant, tests: list[str], reading: Sequence[str] = ()) -> Verdict:
        """Runs the tests on the mutant, then the tests `reading` the sources, then mypy.

        It is noticed when a test fails, or when pytest ends badly and ends well without the mutant.
        The test may also fail without the mutant: see `failing`.
        """
        for batch in (tests[:NEAREST], tests[NEAREST:], [*reading]):
            tried = self._tried(batch, mutant, "-x") if batch else PASSED
            if tried.failed:
                return Verdict("noticed", tried.failed[0])
            if not tried.passed:
                control = self._tried(tried.hanging or batch, None, "-x")
                word = "noticed" if control.passed else "broken"
                return Verdict(word, "the end of pytest")
        if self.types and self._mypy(mutant) == 1:
            return Verdict("noticed", "mypy")
        return Verdict("survived")

    def failing(self, tests: Iterable[str]) -> set[str]:
        """Those of the tests that fail without a mutant."""
        tests = sorted(set(tests))
        tried = self._tried(tests, None) if tests else PASSED
        return set() if tried.passed else set(tried.failed) or set(tests)

    def _tried(self, tests: list[str], mutant: Mutant | None, *options: str) -> _Tried:
        with self._copy(mutant) as place:
            only, outcomes = place / "only", place / "outcomes"
            only.write_text(json.dumps(tests))
            env = {"MUTANTS_ONLY": str(only), "MUTANTS_OUTCOMES": str(outcomes)}
            files = sorted({test.partition("::")[0] for test in tests})
            limits = ["--timeout", str(TEST_SECONDS), "--hypothesis-seed", "1"]
            ended = self.run(place, [*PYTEST, *options, *limits, *files], env, ALL_SECONDS)
            said = outcomes_in(outcomes)
        failed = [record for record in said if record.get("failed")]
        hanging = [record["test"] for record in failed if record["hangs"]]
        return _Tried(
            passed=ended.status == 0 and {"finished": 0} in said,
            failed=[r["test"] for r in failed] if ended.status == 1 and not hanging else [],
            hanging=hanging,
        )

    def _mypy(self, mutant: Mutant | None) -> int | None:
        """The exit status of mypy."""
        with self._copy(mutant) as place:
            cache, kept = place / "types", self.work / "types"
            if kept.exists():
                shutil.copytree(kept, cache)
            ended = self.run(place, [*MYPY, str(cache)], {}, ALL_SECONDS)
            if mutant is None and cache.exists():
                cache.rename(kept)
        return ended.status

    @contextmanager
    def _copy(self, mutant: Mutant | None) -> Iterator[Path]:
        """A directory with a copy of the tree, with the mutant if there is one."""
        with tempfile.TemporaryDirectory(
            prefix="mutant-", dir=self.work, ignore_cleanup_errors=True
        ) as name:
            place = Path(name)
            shutil.copytree(self.work / "pristine", place / "tree", symlinks=True)
            if mutant is not None:
                file = place / "tree" / mutant.path
                file.write_bytes(mutant.applied(file.read_bytes()))
            yield place


@dataclass(frozen=True)
class _Tried:
    """The end of a run of tests; `hanging` is the test that was ended after its time."""

    passed: bool
    failed: list[str]
    hanging: list[str]


PASSED = _Tried(True, [], [])

"""The verdict of the tests on one mutant."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .mapping import PYTEST
from .planting import Mutant
from .walls import Ended, Runner

# A test that hangs fails after this time.
TEST_SECONDS = 60
ALL_SECONDS = 600
# The nearest tests run first: a process for them needs few modules.
NEAREST = 30


@dataclass(frozen=True)
class Verdict:
    """Whether a mutant is noticed, and the test that fails.

    "broken" says nothing about the mutant: the same tests fail without it.
    """

    word: Literal["noticed", "survived", "broken"]
    by: str = ""


@dataclass
class Laboratory:
    """Runs tests on copies of `work`/pristine."""

    work: Path
    run: Runner
    _passes: dict[tuple[str, ...], bool] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def verdict(self, mutant: Mutant, tests: list[str]) -> Verdict:
        """Runs the tests on the mutant.

        It is noticed when a test fails, or pytest does not end well, and the same passes without
        the mutant.
        """
        with tempfile.TemporaryDirectory(
            prefix="mutant-", dir=self.work, ignore_cleanup_errors=True
        ) as name:
            place = Path(name)
            file = self._copy(place) / mutant.path
            file.write_bytes(mutant.applied(file.read_bytes()))
            for batch in (tests[:NEAREST], tests[NEAREST:]):
                if batch and (by := self._failing(place, batch)):
                    word = "noticed" if self._pass_without(by) else "broken"
                    return Verdict(word, by[0] if len(by) == 1 else f"one of {len(by)}")
        return Verdict("survived")

    def _copy(self, place: Path) -> Path:
        shutil.copytree(self.work / "pristine", place / "tree", symlinks=True)
        return place / "tree"

    def _failing(self, place: Path, tests: list[str]) -> list[str]:
        """The test that fails, or all when pytest ends without naming one; none when all pass."""
        ended, failed, finished = self._tried(place, tests)
        if ended.status == 0 and finished:
            return []
        return failed if ended.status == 1 and failed else tests

    def _pass_without(self, tests: list[str]) -> bool:
        key = tuple(tests)
        with self._lock:
            if key not in self._passes:
                with tempfile.TemporaryDirectory(
                    prefix="control-", dir=self.work, ignore_cleanup_errors=True
                ) as name:
                    place = Path(name)
                    self._copy(place)
                    self._passes[key] = not self._failing(place, tests)
            return self._passes[key]

    def _tried(self, place: Path, tests: list[str]) -> tuple[Ended, list[str], bool]:
        only, outcomes = place / "only", place / "outcomes"
        only.write_text(json.dumps(tests))
        outcomes.unlink(missing_ok=True)
        env: Mapping[str, str] = {"MUTANTS_ONLY": str(only), "MUTANTS_OUTCOMES": str(outcomes)}
        files = sorted({test.partition("::")[0] for test in tests})
        argv = [*PYTEST, "-x", "--timeout", str(TEST_SECONDS), "--hypothesis-seed", "1", *files]
        ended = self.run(place, argv, env, ALL_SECONDS)
        said = (
            [json.loads(s) for s in outcomes.read_text().splitlines()] if outcomes.exists() else []
        )
        failed = [record["test"] for record in said if record.get("failed")]
        return ended, failed, {"finished": 0} in said

"""Guides a reader after a build that failed: steps with commands, and the files to look at."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from particle_os.boot import files
from particle_os.boot.evidence import COMMAND, CONSOLE, SCREEN
from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import InfrastructureError, ParticleError
from particle_os.report.results import ENDINGS, Result

# The build writes it after the page.
RESULT = "result.json"
EVIDENCE = (CONSOLE, files.JOURNAL, SCREEN, COMMAND)
TITLES = {
    "log": "everything that the build printed",
    "console.log": "the console of the helper VM",
    RESULT: "the result as data",
}


@dataclass(frozen=True)
class NextStep:
    """A sentence, and the command that does it."""

    text: str
    command: str | None = None


@dataclass(frozen=True)
class FileLink:
    """A file beside the page: its relative address, its name, and what it has."""

    address: str
    name: str
    title: str


def steps(
    result: Result, failure: ParticleError | None, verdicts: Sequence[Verdict], recipe: str
) -> list[NextStep]:
    """The steps after a failure; none for a build whose images are published.

    `recipe` is the path of the recipe.
    """
    again = NextStep("Build again. What has not changed comes from the cache.", _build(recipe))
    if failure is not None:
        first = _after_an_error(failure, recipe)
    elif result.status == "defective":
        first = [
            NextStep("Mend the errors below, or accept them with 'accepted-errors' of the recipe.")
        ]
    elif result.status == "not-booted":
        first = _after_a_boot(result, verdicts)
    else:
        return []
    return [*first, again]


def _after_an_error(failure: ParticleError, recipe: str) -> list[NextStep]:
    first = [NextStep(failure.hint)] if failure.hint else []
    if failure.command:
        text = "Look around in the system as the failed stage left it."
        first.append(NextStep(text, failure.command))
    elif isinstance(failure, InfrastructureError):
        first.append(NextStep("Check this host.", "particle-os doctor"))
    return first


def _after_a_boot(result: Result, verdicts: Sequence[Verdict]) -> list[NextStep]:
    found = []
    for verdict in verdicts:
        # The disk of such a step is not kept.
        if not verdict.accepted and verdict.step not in ("parent", "upgrade", "rollback"):
            script = f"{result.recipe}.evidence/{verdict.machine}/{COMMAND}"
            text = "Boot the image by hand as the test did, in the directory of this page."
            found.append(NextStep(text, shlex.join(["sh", script])))
    return found


def _build(recipe: str) -> str:
    return shlex.join(["particle-os", "build", recipe])


def links(
    name: str, directory: Path, evidence: Mapping[str, Path], verdicts: Sequence[Verdict]
) -> list[FileLink]:
    """The files of the build NAME that exist in `directory`, and those of the evidence."""
    found = [
        _link(f"{name}.{ending}", TITLES[ending])
        for ending in ENDINGS
        if ending == RESULT or (ending in TITLES and (directory / f"{name}.{ending}").exists())
    ]
    for verdict in verdicts:
        place = evidence.get(verdict.machine)
        found += [
            _link(f"{name}.evidence/{verdict.machine}/{file}", "the boot test")
            for file in EVIDENCE
            if place is not None and (place / file).exists()
        ]
    return found


def _link(path: str, title: str) -> FileLink:
    # './' keeps a name with a colon from being taken for a scheme.
    return FileLink(f"./{quote(path)}", path, title)

"""Verdicts on an image, as data, as lines for people, and as the error that ends a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from particle_os.boot.evidence import CONSOLE
from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import NotBooted, ParticleError
from particle_os.report.results import Result
from particle_os.sandbox.verification import defective


def data(verdicts: Sequence[Verdict]) -> object:
    """The verdicts as JSON shows them: one as an object, those on several machines as an array."""
    found = [verdict.model_dump(mode="json") for verdict in verdicts]
    return found[0] if len(found) == 1 else found


def lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """One line for each check, and one for each verdict."""
    for verdict in verdicts:
        for check in verdict.checks:
            yield f"{'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail[:200]}"
        how = f"{verdict.status} in {verdict.seconds:.1f} s under {verdict.machine}"
        yield f"{how}: {verdict.message}"


def not_booted(verdict: Verdict, console_log: Path | None) -> NotBooted:
    """The error for a verdict other than `passed`.

    `console_log` is None when the boot test kept no evidence.
    """
    tail = []
    for name, text in verdict.facts.items():
        if name.startswith("journal:"):
            tail += [f"{name.removeprefix('journal:')}:", *text.splitlines()]
    hint = None
    if verdict.status == "no-bootable-device":
        other = "uefi" if verdict.firmware == "bios" else "bios"
        hint = (
            f"A PC's image that starts from the other firmware only needs --firmware {other}, and "
            "one of another architecture needs --architecture."
        )
    elif console_log is None:
        hint = "--evidence DIRECTORY keeps the console, the screen and the journal."
    return NotBooted(
        f"the image did not pass its boot test: {verdict.status}: {verdict.message}",
        hint=hint,
        tail=[*tail, *verdict.console_tail],
        log=console_log,
    )


def failure_of(result: Result, directory: Path) -> ParticleError | None:
    """The error for a build whose image is defective or did not boot; None for a good image.

    `directory` has the files of the build.
    """
    if result.verification is not None and result.verification.errors:
        return defective(result.verification, directory / f"{result.recipe}.log")
    if result.is_good:
        return None
    verdict = next(v for v in result.boot if not v.passed)
    console = Path(f"{result.recipe}.evidence") / verdict.machine / CONSOLE
    return not_booted(verdict, directory / console)

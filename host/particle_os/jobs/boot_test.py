"""Boots an existing image on one machine after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_os.boot import session
from particle_os.boot.evidence import CONSOLE, Evidence
from particle_os.boot.observation.verdict import Verdict
from particle_os.boot.variants import Variant
from particle_os.errors import InfrastructureError, NotBooted, printable
from particle_os.recipe.checks.kinds import Check
from particle_os.report import page
from particle_os.report.progress import Progress
from particle_os.report.verdict import not_booted
from particle_os.system.workspace import Workspace, workspace
from particle_os.vm.accel import Acceleration
from particle_os.vm.argv import ImageFormat

Accelerate = Callable[[Workspace, Progress], Acceleration]


@dataclass(frozen=True)
class BootTestJob:
    """The image to boot, and the checks that must hold; the fields as in `session.boot`.

    The image boots on each machine of `variants`, in their order.
    """

    image: Path
    format: ImageFormat
    variants: Sequence[Variant]
    checks: Sequence[Check]
    timeout: int | None = None
    console_only: bool = False
    # The directory that keeps console, screen and journal; None keeps them for the report only.
    evidence: Path | None = None
    # A directory of tests for pytest-testinfra, and the content of a goss file.
    testinfra: Path | None = None
    goss: bytes | None = None


@dataclass(frozen=True)
class BootReport:
    """The verdicts and a page for people that shows them.

    `rejection` is the error for an image that did not boot. `failure` is the error of QEMU or the
    host that ended the test; the verdicts are not complete then.
    """

    verdicts: Sequence[Verdict]
    page: str
    rejection: NotBooted | None = None
    failure: InfrastructureError | None = None


def run(test: BootTestJob, accelerate: Accelerate, progress: Progress) -> BootReport:
    """Boots the image on each machine, with the acceleration that `accelerate` chooses.

    When QEMU or the host fails, the report has the error, and the last verdict repeats it.
    """
    verdicts: list[Verdict] = []
    variant = test.variants[0]
    # The evidence of this test; what lies in the directory may be another's or of another test.
    kept: dict[str, Path] = {}
    try:
        with workspace() as work:
            acceleration = accelerate(work, progress)
            plot = acceleration.name == "kvm" or test.evidence is not None
            for variant in test.variants:
                with progress.phase(f"boot test ({variant.name})"):
                    place = (test.evidence or work.path / "evidence") / variant.name
                    image = test.image.resolve()
                    evidence = Evidence(place, image, plot=plot, gate=progress.gate)
                    try:
                        verdict = boot(test, variant, acceleration, evidence, work.path, progress)
                    except session.Undecided:
                        kept[variant.name] = place
                        raise
                    kept[variant.name] = place
                    verdicts.append(verdict)
            report = page.document(test.image.name, verdicts, evidence=kept)
            return BootReport(verdicts, report, rejection=_rejection(test, verdicts))
    except InfrastructureError as error:
        verdicts.append(undecided(error, variant))
        report = page.document(test.image.name, verdicts, evidence=kept)
        return BootReport(verdicts, report, failure=error)


def boot(
    test: BootTestJob,
    variant: Variant,
    acceleration: Acceleration,
    evidence: Evidence,
    work: Path,
    progress: Progress,
) -> Verdict:
    """Boots the image on one machine, in a new directory below `work`.

    Raises as `session.boot` does.
    """
    return session.boot(
        test.image,
        acceleration,
        format=test.format,
        directory=work / f"boot-test-{variant.name}",
        evidence=evidence,
        checks=test.checks,
        variant=variant,
        timeout=test.timeout,
        on_phase=progress.boot_phase,
        console_only=test.console_only,
        testinfra=test.testinfra,
        goss=test.goss,
    )


def _rejection(test: BootTestJob, verdicts: Sequence[Verdict]) -> NotBooted | None:
    """The error for the first verdict that does not accept the image."""
    for verdict in verdicts:
        if not verdict.accepted:
            console = test.evidence and test.evidence / verdict.machine / CONSOLE
            return not_booted(verdict, console)
    return None


def undecided(error: InfrastructureError, variant: Variant) -> Verdict:
    """The verdict on an image when QEMU or the host failed: what was seen until then."""
    if isinstance(error, session.Undecided):
        return error.verdict
    brief = printable(error.brief)
    return Verdict(
        status="infrastructure",
        firmware=variant.firmware,
        devices=variant.devices,
        seconds=0,
        message=brief,
    )

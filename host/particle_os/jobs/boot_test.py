"""Boots an image that is there already, under one firmware after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_os.boot import session
from particle_os.boot.evidence import Evidence
from particle_os.boot.verdict import Verdict
from particle_os.errors import InfrastructureError, printable
from particle_os.recipe.checks.kinds import Check
from particle_os.report import page
from particle_os.report.progress import Progress
from particle_os.system.workspace import Workspace, workspace
from particle_os.vm.accel import Acceleration
from particle_os.vm.argv import ImageFormat
from particle_os.vm.firmware import Firmware

Accelerate = Callable[[Workspace, Progress], Acceleration]


@dataclass(frozen=True)
class BootTestJob:
    """What is to be seen of an image; as `session.boot` takes it."""

    image: Path
    format: ImageFormat
    firmwares: Sequence[Firmware]
    checks: Sequence[Check]
    memory: int | None
    timeout: int | None
    console_only: bool
    # Where console, screen and journal are kept; without it they are for the report only.
    evidence: Path | None


@dataclass(frozen=True)
class BootReport:
    """The verdicts, a page for people that shows them, and why they are not complete."""

    verdicts: Sequence[Verdict]
    page: str
    failure: InfrastructureError | None = None


def run(test: BootTestJob, accelerate: Accelerate, progress: Progress) -> BootReport:
    """Boots the image under each firmware, with what `accelerate` chooses.

    A failure of QEMU or the host is in the report, and the last verdict says it, too.
    """
    verdicts: list[Verdict] = []
    firmware = test.firmwares[0]
    try:
        with workspace() as work:
            acceleration = accelerate(work, progress)
            evidence = test.evidence or work.path / "evidence"
            for firmware in test.firmwares:
                with progress.phase(f"boot test ({firmware})"):
                    boot = work.path / f"boot-test-{firmware}"
                    kept = evidence / firmware
                    verdicts.append(_boot(test, firmware, acceleration, boot, kept, progress))
            return BootReport(verdicts, page.document(test.image.name, verdicts, evidence=evidence))
    except InfrastructureError as error:
        verdicts.append(_undecided(error, firmware))
        report = page.document(test.image.name, verdicts, evidence=test.evidence)
        return BootReport(verdicts, report, error)


def _boot(
    test: BootTestJob,
    firmware: Firmware,
    acceleration: Acceleration,
    directory: Path,
    evidence: Path,
    progress: Progress,
) -> Verdict:
    plot = acceleration.name == "kvm" or test.evidence is not None
    return session.boot(
        test.image,
        acceleration,
        format=test.format,
        firmware=firmware,
        directory=directory,
        evidence=Evidence(evidence, test.image.resolve(), plot=plot),
        checks=test.checks,
        memory=test.memory,
        timeout=test.timeout,
        on_phase=progress.boot_phase,
        console_only=test.console_only,
    )


def _undecided(error: InfrastructureError, firmware: Firmware) -> Verdict:
    """What was seen of an image until QEMU or the host failed."""
    if isinstance(error, session.Undecided):
        return error.verdict
    brief = printable(error.brief)
    return Verdict(status="infrastructure", firmware=firmware, seconds=0, message=brief)

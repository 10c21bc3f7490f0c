"""The wanted boot test of an image, and its requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_os.boot.evidence import Evidence
from particle_os.boot.machines.limits import memory_for, seconds_for
from particle_os.boot.machines.variants import Variant
from particle_os.boot.request import BootRequest
from particle_os.recipe.checks.kinds import Check
from particle_os.report.progress import Progress
from particle_os.vm import accel
from particle_os.vm.accel import Acceleration
from particle_os.vm.argv import ImageFormat


@dataclass(frozen=True)
class UpdateDisks:
    """The disks of a test of an upgrade, both raw: the parent's system, and the new repository.

    `commit` is the checksum of the new version, as soon as it is known.
    """

    parent: Path
    update: Path
    commit: str = ""

    @classmethod
    def inside(cls, directory: Path) -> UpdateDisks:
        """The disks as files in a directory."""
        return cls(directory / "parent.raw", directory / "update.raw")

    @property
    def outputs(self) -> dict[str, Path]:
        """The disks by the names of the output disks."""
        return {"parent": self.parent, "update": self.update}


@dataclass(frozen=True)
class BootTestJob:
    """The image to boot, and the checks that must hold; the fields as in `BootRequest`.

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
    # The test of an upgrade, and whether the image must leave an update that is bad.
    upgrade: UpdateDisks | None = None
    fallback: bool = False

    def request(
        self,
        variant: Variant,
        acceleration: Acceleration,
        evidence: Evidence,
        progress: Progress,
    ) -> BootRequest:
        """The request to boot the image on one machine."""
        return BootRequest(
            image=self.image,
            format=self.format,
            acceleration=acceleration,
            processors=accel.processors(acceleration, variant.processors),
            evidence=evidence,
            checks=self.checks,
            memory=memory_for(self.checks, variant.memory),
            seconds=self.timeout or seconds_for(self.checks, acceleration),
            on_phase=progress.boot_phase,
            on_line=progress.line,
            console_only=self.console_only,
            variant=variant,
            testinfra=self.testinfra,
            goss=self.goss,
        )

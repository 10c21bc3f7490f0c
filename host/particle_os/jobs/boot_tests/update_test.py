"""Tests the updates of an OSTree system, after the image itself has booted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from particle_os.boot.evidence import Evidence
from particle_os.boot.observation.verdict import UpdateStep, Verdict, machine_name
from particle_os.boot.request import BootRequest
from particle_os.boot.updates import tests
from particle_os.boot.updates.boots import UpdateBoots
from particle_os.jobs.boot_tests.wanted import UpdateDisks
from particle_os.report.progress import Progress
from particle_os.vm.argv import Disk


@dataclass(frozen=True)
class UpdateTest:
    """The wanted tests of updates. `request` boots the image itself.

    The evidence of a step goes to its own directory in `evidence`. `directory` is for the machines.
    """

    request: BootRequest
    directory: Path
    evidence: Path
    progress: Progress
    upgrade: UpdateDisks | None = None
    fallback: bool = False

    def run(self) -> Iterator[Verdict]:
        """Yields the verdict on each boot. Raises as `session.boot`."""
        if self.upgrade is not None:
            yield from self._upgrade(self.upgrade)
        if self.fallback:
            image = self.request.evidence.image
            yield from tests.fallback(self._boots("fallback", self.request, image))

    def _upgrade(self, disks: UpdateDisks) -> Iterator[Verdict]:
        update = Disk(disks.update, "raw", "update", read_only=True)
        request = replace(self.request, image=disks.parent, format="raw", more_disks=(update,))
        yield from tests.upgrade(self._boots("upgrade", request, None), disks.commit)

    def _boots(self, name: str, request: BootRequest, image: Path | None) -> UpdateBoots:
        def evidence(step: UpdateStep) -> Evidence:
            return replace(request.evidence, directory=self.evidence / named(step), image=image)

        def named(step: UpdateStep) -> str:
            return machine_name(request.variant.firmware, request.variant.devices, step)

        def shown(step: UpdateStep) -> AbstractContextManager[None]:
            return self.progress.phase(f"boot test ({named(step)})")

        directory = self.directory / f"{name}-{request.variant.name}"
        return UpdateBoots(request, directory, evidence, shown)

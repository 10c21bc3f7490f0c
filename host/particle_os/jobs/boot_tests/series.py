"""The boots of one test: the image on each machine, and then the tests of its updates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from particle_os.boot import session
from particle_os.boot.evidence import Evidence
from particle_os.boot.machines.variants import Variant
from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import InfrastructureError, printable
from particle_os.jobs.boot_tests.update_test import UpdateTest
from particle_os.jobs.boot_tests.wanted import BootTestJob
from particle_os.report.progress import Progress
from particle_os.vm.accel import Acceleration


@dataclass
class BootSeries:
    """A boot test under way.

    `work` is the directory for the machines, `places` that for the evidence. `image` is the path of
    the image in the evidence's scripts. `plot` is as in `Evidence`.
    """

    test: BootTestJob
    progress: Progress
    work: Path
    places: Path
    image: Path
    plot: bool
    verdicts: list[Verdict] = field(default_factory=list)
    # The evidence of this test; what lies in the directory may be another's or of another test.
    kept: dict[str, Path] = field(default_factory=dict)

    def run(self, acceleration: Acceleration) -> None:
        """Boots the image on each machine, and tests its updates on the first one.

        Raises InfrastructureError when QEMU or the host fails; the last verdict repeats it.
        """
        for variant in self.test.variants:
            with self.progress.phase(f"boot test ({variant.name})"), self._undecided(variant):
                request = self.test.request(
                    variant, acceleration, self._evidence(variant), self.progress
                )
                self._note(session.boot(request, self.work / f"boot-test-{variant.name}"))
        if all(verdict.passed for verdict in self.verdicts):
            self._test_updates(self.test.variants[0], acceleration)

    def _test_updates(self, variant: Variant, acceleration: Acceleration) -> None:
        evidence = self._evidence(variant)
        request = self.test.request(variant, acceleration, evidence, self.progress)
        updates = UpdateTest(
            request,
            self.work,
            self.places,
            self.progress,
            self.test.upgrade,
            self.test.fallback,
        )
        with self._undecided(variant):
            for verdict in updates.run():
                self._note(verdict)

    def _evidence(self, variant: Variant) -> Evidence:
        place = self.places / variant.name
        return Evidence(place, self.image, plot=self.plot, gate=self.progress.gate)

    def _note(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        self.kept[verdict.machine] = self.places / verdict.machine

    @contextmanager
    def _undecided(self, variant: Variant) -> Iterator[None]:
        """Notes the verdict on a boot that QEMU or the host ends."""
        try:
            yield
        except session.Undecided as error:
            self._note(error.verdict)
            raise
        except InfrastructureError as error:
            self.verdicts.append(undecided(error, variant))
            raise


def undecided(error: InfrastructureError, variant: Variant) -> Verdict:
    """The verdict on an image that did not start because QEMU or the host failed."""
    return Verdict(
        status="infrastructure",
        firmware=variant.firmware,
        devices=variant.devices,
        seconds=0,
        message=printable(error.brief),
    )

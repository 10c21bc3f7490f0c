"""Boots an existing image on one machine after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from particle_os.boot.evidence import CONSOLE
from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import InfrastructureError, NotBooted
from particle_os.jobs.boot_tests.series import BootSeries, undecided
from particle_os.jobs.boot_tests.wanted import BootTestJob
from particle_os.report import page
from particle_os.report.progress import Progress
from particle_os.report.verdict import not_booted
from particle_os.system.workspace import Workspace, workspace
from particle_os.vm.accel import Acceleration

__all__ = ["BootReport", "BootTestJob", "run"]

Accelerate = Callable[[Workspace, Progress], Acceleration]


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
    name = test.image.name
    with workspace() as work:
        try:
            acceleration = accelerate(work, progress)
        except InfrastructureError as error:
            verdicts = [undecided(error, test.variants[0])]
            return BootReport(verdicts, page.document(name, verdicts), failure=error)
        plot = acceleration.name == "kvm" or test.evidence is not None
        places = test.evidence or work.path / "evidence"
        series = BootSeries(test, progress, work.path, places, test.image.resolve(), plot)
        failure = None
        try:
            series.run(acceleration)
        except InfrastructureError as error:
            failure = error
        document = page.document(name, series.verdicts, evidence=series.kept)
        rejection = None if failure else _rejection(test, series.verdicts)
        return BootReport(series.verdicts, document, rejection, failure)


def _rejection(test: BootTestJob, verdicts: Sequence[Verdict]) -> NotBooted | None:
    """The error for the first verdict that does not accept the image."""
    for verdict in verdicts:
        if not verdict.accepted:
            console = test.evidence and test.evidence / verdict.machine / CONSOLE
            return not_booted(verdict, console)
    return None

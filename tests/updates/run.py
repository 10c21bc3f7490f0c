"""Runs the tests of an update on disks that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from particle_os.boot.evidence import Evidence
from particle_os.boot.machines.variants import USUAL
from particle_os.boot.observation.verdict import Verdict
from particle_os.boot.request import BootRequest
from particle_os.jobs.boot_tests.update_test import UpdateTest
from particle_os.jobs.boot_tests.wanted import BootTestJob, UpdateDisks
from particle_os.report.progress import Progress
from particle_os.vm import accel

from tests.updates.good import Update


def request_of(
    update: Update, place: Path, progress: Progress, timeout: int | None = None
) -> BootRequest:
    """The request to boot the parent's disk."""
    test = BootTestJob(update.parent, "raw", (USUAL,), (), timeout)
    evidence = Evidence(place / "evidence/bios", None, plot=False, gate=progress.gate)
    return test.request(USUAL, accel.TCG, evidence, progress)


def verdict_of(
    update: Update, place: Path, test: Literal["upgrade", "fallback"], timeout: int | None
) -> Verdict:
    """The verdict on the last boot of the test. With emulation, as on machines without KVM."""
    progress = Progress([])
    disks = None
    if test == "upgrade":
        disks = UpdateDisks(update.parent, update.disk, update.commit)
    tests = UpdateTest(
        request_of(update, place, progress, timeout),
        place,
        place / "evidence",
        progress,
        disks,
        fallback=test == "fallback",
    )
    return list(tests.run())[-1]

"""The boots of one test of an update: several machines, one after the other, on one overlay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from particle_os.boot.attempt import boot_once
from particle_os.boot.evidence import Evidence
from particle_os.boot.frameworks.image_shell import ImageShell, NotRun, Ran
from particle_os.boot.observation.verdict import (
    BootStatus,
    Outcome,
    UpdateStep,
    Verdict,
)
from particle_os.boot.request import BootRequest
from particle_os.errors import DeadlineExceeded, printable
from particle_os.recipe.checks.system import RebootCheck
from particle_os.system.deadline import Deadline
from particle_os.vm.accel import processors
from particle_os.vm.console import QemuEnded
from particle_os.vm.overlay import make_overlay

OVERLAY_SECONDS = 30.0
# For all work of one boot.
WORK_SECONDS = 600.0


class WorkFailed(Exception):
    """The work in a system failed; the text says at which step, and why."""


Work = Callable[["Worker"], None]


@dataclass(frozen=True)
class Worker:
    """The shell of a system that has passed."""

    shell: ImageShell
    deadline: Deadline

    def run(self, what: str, script: str) -> str:
        """Runs a script and returns its output. Raises WorkFailed, which names `what` it does."""
        try:
            ran = self.shell.run(script.encode(), self.deadline)
        except (NotRun, DeadlineExceeded) as error:
            raise WorkFailed(f"{what}: {error}") from error
        if ran.status != 0:
            raise WorkFailed(f"{what}: {_reason(ran)}")
        return ran.stdout.decode("utf-8", "replace")


def _reason(ran: Ran) -> str:
    """The last line that a script prints, mostly to its errors; the text is untrusted."""
    text = (ran.stderr or ran.stdout).decode("utf-8", "replace").strip()
    last = printable(text.rpartition("\n")[2], 300)
    return last or f"the script ended with status {ran.status}"


@dataclass(frozen=True)
class UpdateBoots:
    """Boots the overlay of `request.image` again and again; its changes last.

    `evidence` and `shown` give a step the place of its evidence and its line of progress.
    `directory` is the boots' own.
    """

    request: BootRequest
    directory: Path
    evidence: Callable[[UpdateStep], Evidence]
    shown: Callable[[UpdateStep], AbstractContextManager[None]]

    @property
    def overlay(self) -> Path:
        return self.directory / "overlay.qcow2"

    def begin(self) -> None:
        """Makes the overlay."""
        self.directory.mkdir(mode=0o700)
        deadline = Deadline.after(OVERLAY_SECONDS, "making the overlay")
        make_overlay(self.overlay, self.request.image, self.request.format, deadline)

    def boot(
        self,
        step: UpdateStep,
        failure: BootStatus,
        what: str,
        work: Work,
        *,
        checked: bool = False,
        restarts: int = 0,
    ) -> Verdict:
        """Boots the next version, does `work` in it, and shuts it down.

        With `checked`, all checks must hold. A boot that does not pass has the status `failure`,
        and its message begins with `what`. The machine may restart `restarts` times more than
        usual. Raises as `session.boot`.
        """
        evidence = self.evidence(step)
        evidence.clear()
        request = self.request_of(evidence, step, failure, work, restarts)
        if not checked:
            request = replace(request, checks=(), goss=None, testinfra=None)
        with self.shown(step):
            found = boot_once(request, self.overlay, self.directory / step, shut_down=True)
        if not found.passed and found.status != failure:
            message = f"{what}: {found.status}: {found.message}"
            found = replace(found, status=failure, message=message)
        return request.verdict(found)

    def request_of(
        self,
        evidence: Evidence,
        step: UpdateStep,
        failure: BootStatus,
        work: Work,
        restarts: int,
    ) -> BootRequest:
        """The request for one step; the arguments are those of `boot`."""
        request = self.request
        factor = request.acceleration.factor

        def errand(shell: ImageShell) -> Outcome | None:
            deadline = Deadline.after(WORK_SECONDS * factor, "the work of an update")
            try:
                work(Worker(shell, deadline))
            except WorkFailed as failed:
                return failure, str(failed)
            except QemuEnded as ended:
                if ended.status != 0:
                    raise
                return failure, "the machine has switched itself off"
            return None

        return replace(
            request,
            # Each step is a new boot.
            checks=[check for check in request.checks if not isinstance(check, RebootCheck)],
            evidence=evidence,
            step=step,
            errand=errand,
            # The emulation of several processors can fail, and no step can be repeated.
            processors=processors(request.acceleration, 1),
            most_restarts=request.most_restarts + restarts,
            seconds=request.seconds * (1 + restarts),
        )

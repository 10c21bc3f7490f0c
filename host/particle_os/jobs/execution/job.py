"""A job: a plan that is being carried out, with the places where it works and reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from particle_agent.contract import wire

from particle_os.documents import folding
from particle_os.errors import ParticleError, printable
from particle_os.jobs import cache
from particle_os.jobs.checkpoints import Checkpoints
from particle_os.jobs.plan import PLAIN_NOTE, Plan
from particle_os.report.progress import Progress
from particle_os.system.confinement import landlock_abi
from particle_os.system.workspace import Workspace, cache_directory, workspace
from particle_os.vm import accel
from particle_os.vm.console import ConsoleLog

# All notes of a job, and those that its guests send.
NOTES_LIMIT, GUEST_NOTES_LIMIT = 100, 50
UNCONFINED = (
    "the kernel of this host has no Landlock, so QEMU and the other programs can open your files"
)


@dataclass(frozen=True)
class Job:
    """A plan that is being carried out.

    The VM writes its output into the directory `staging`.
    """

    plan: Plan
    progress: Progress
    work: Workspace
    checkpoints: Checkpoints
    staging: Path
    # The notes for the result.
    notes: list[str] = field(default_factory=list)
    # Counts the notes of the guests.
    guest_notes: Counter[type] = field(default_factory=Counter)

    @property
    def transcript(self) -> ConsoleLog:
        """The file that receives the consoles of the job's VMs; `Delivery` keeps it."""
        return ConsoleLog(self.staging / f"{self.plan.name}.console.log", self.progress.gate)

    def note(self, text: str) -> None:
        """Shows a note and adds it to the result."""
        self._record(text)
        self.progress.note(text)

    def _record(self, text: str) -> None:
        """Adds a note to the result."""
        if len(self.notes) < NOTES_LIMIT:
            self.notes.append(printable(self.progress.gate.text(text)))

    def show_notes(self) -> None:
        """Shows the notes that follow from the plan; those of one kind are folded."""
        for note in self.plan.loaded.notes:
            self._record(str(note))
        for text in folding.notes(self.plan.loaded.notes):
            self.progress.note(text)
        for text in self.plan.base.notes if self.plan.base else ():
            self.note(text)
        if not landlock_abi():
            self.note(UNCONFINED)
        if self.plan.options.plain:
            self.note(PLAIN_NOTE)
        if self.plan.lacks_security:
            self.note(
                "with --mirror the image has no updates and security suites; add them with a "
                "sources stage"
            )

    def show_output(self, event: wire.AgentEvent) -> None:
        """Shows the notes of the agent and the output of programs; ignores every other event."""
        if isinstance(event, wire.OutputLine):
            self.progress.line(event.text)
        elif isinstance(event, wire.Notice):
            self._note_of_guest(event)

    def _note_of_guest(self, event: wire.Notice) -> None:
        self.guest_notes[wire.Notice] += 1
        count = self.guest_notes[wire.Notice]
        if count < GUEST_NOTES_LIMIT:
            self.note(event.text)
        elif count == GUEST_NOTES_LIMIT:
            self.note("the helper VM sends more notes; they are left out")


@contextmanager
def open_job(plan: Plan, progress: Progress, output: Path | None) -> Iterator[Job]:
    """A job in a fresh workspace; the cache is pruned after a job that raises nothing.

    Files in the job's `staging` can be renamed into the directory `output`.
    """
    accel.check_emulator(plan.loaded.architecture)
    progress.gate.learn(plan.secrets.values())
    with workspace() as work, Checkpoints(cache_directory() / "checkpoints") as kept:
        staging = work.path if output is None else work.adopt_directory(output)
        yield Job(plan, progress, work, kept, staging)
    try:
        cache.prune(cache_directory(), limit=cache.LIMIT_BYTES)
    except (OSError, ParticleError) as error:
        # The result is published: this is no failure of the job.
        progress.note(f"old entries of the cache are still there: {error}")

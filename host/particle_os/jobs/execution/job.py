"""One job under way: what is to be done, and where it works and reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from particle_agent.contract import wire

from particle_os.errors import printable
from particle_os.jobs.checkpoints import Checkpoints
from particle_os.jobs.plan import Plan
from particle_os.report.progress import Progress
from particle_os.system.workspace import Workspace

NOTES_LIMIT = 100


@dataclass(frozen=True)
class Job:
    """A plan that is being carried out.

    The VM writes its output into the directory `staging`, and its console into the file
    `transcript`.
    """

    plan: Plan
    progress: Progress
    work: Workspace
    checkpoints: Checkpoints
    staging: Path
    transcript: Path
    # The user reads these in the result, too.
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if len(self.notes) < NOTES_LIMIT:
            self.notes.append(printable(text))
        self.progress.note(text)

    def tell_notes(self) -> None:
        """Shows the notes that the plan itself gives rise to."""
        for note in self.plan.loaded.notes:
            self.note(str(note))
        if self.plan.lacks_security:
            self.note(
                "with --mirror the image has no updates and security suites: a sources stage sets "
                "them"
            )

    def show_output(self, event: wire.AgentEvent) -> None:
        """Shows what the guest's programs print; ignores every other event."""
        if isinstance(event, wire.OutputLine):
            self.progress.line(event.text)

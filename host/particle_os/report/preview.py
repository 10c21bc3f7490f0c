"""A dry run: what a build would do, as data and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from particle_os.errors import Problem, printable


@dataclass(frozen=True)
class Step:
    """A step of a build; `ready` when the cache already has its result."""

    step: str
    detail: str
    ready: bool = False


@dataclass(frozen=True)
class Preview:
    """The steps of a build of `recipe`.

    `base_digest` is None for a base that is not made yet. `plain_note` is the note of a build that
    takes no shortcuts.
    """

    recipe: str
    base_digest: str | None
    steps: tuple[Step, ...]
    notes: tuple[Problem, ...]
    plain_note: str | None = None

    def data(self) -> dict[str, object]:
        """The preview as JSON shows it."""
        return {
            "recipe": self.recipe,
            "base_digest": self.base_digest,
            "plain": self.plain_note is not None,
            "steps": [asdict(step) for step in self.steps],
            "notes": [note.data() for note in self.notes],
        }

    def lines(self) -> Iterator[str]:
        """One line for each step and note."""
        for step in self.steps:
            yield f"{step.step:<12} {printable(step.detail)}{' (ready)' if step.ready else ''}"
        for note in (*self.notes, *([self.plain_note] if self.plain_note else [])):
            yield f"note: {note}"

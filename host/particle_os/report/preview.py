"""A dry run: what a build would do, as data and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from particle_os.documents import folding
from particle_os.errors import Problem, printable


@dataclass(frozen=True)
class Step:
    """A step of a build; `ready` when its result is there already.

    It is None when the result depends on secrets that are not at hand.
    """

    step: str
    detail: str
    ready: bool | None = False

    def line(self) -> str:
        """The step for people."""
        state = {True: " (cached)", False: "", None: " (depends on secrets)"}[self.ready]
        return f"{self.step:<12} {printable(self.detail)}{state}"


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

    def named_lines(self) -> Iterator[str]:
        """The lines below the name of the image."""
        yield f"{self.recipe}:"
        yield from (f"  {line}" for line in self.lines())

    def lines(self) -> Iterator[str]:
        """One line for each step and note."""
        for step in self.steps:
            yield step.line()
        plain_note = [self.plain_note] if self.plain_note else []
        for note in (*folding.notes(self.notes), *plain_note):
            yield f"note: {note}"

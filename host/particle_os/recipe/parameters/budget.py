"""The limits on what variables make of a recipe and its files, which share them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice

from particle_os.documents.document import SIZE_LIMIT, Mark, Source
from particle_os.documents.words import nearest

FAULTS_LIMIT = 1000
# An unknown name is compared with the names of all variables, which takes time.
COMPARISONS_LIMIT = 3000
# The most names of variables in one hint.
NAMES_SHOWN = 20
TOO_LARGE = "the document is too large with the values and templates that are inserted"


@dataclass
class Budget:
    """The rest for inserted values (in characters), for faults and for comparisons of names."""

    room: int = field(default_factory=lambda: SIZE_LIMIT)
    faults: int = FAULTS_LIMIT
    comparisons: int = COMPARISONS_LIMIT

    def charge(self, source: Source, mark: Mark, size: int) -> None:
        """Counts what a variable or a template inserts, before anything is built of it.

        Raises InvalidDocument when it is too much.
        """
        self.room -= size
        if self.room < 0:
            source.problem(mark, "too-complex", TOO_LARGE)
            raise source.invalid()

    def charge_fault(self, source: Source, mark: Mark) -> None:
        """Counts a fault. Raises InvalidDocument when there are too many."""
        self.faults -= 1
        if self.faults < 0:
            message = f"there are more than {FAULTS_LIMIT} errors of variables"
            source.problem(mark, "too-many", message)
            raise source.invalid()

    def near(self, name: str, known: Collection[str]) -> str | None:
        """The known name that was probably meant; None after too many comparisons, too."""
        self.comparisons -= len(known)
        return nearest(name, known) if self.comparisons >= 0 else None

    def hint(self, name: str, known: Collection[str], none: str) -> str:
        """The hint for an unknown name; `none` is the hint when no name is known."""
        if near := self.near(name, known):
            return f"did you mean '{near}'?"
        if self.comparisons < 0:
            return f"{len(known)} others are declared"
        shown = ", ".join(sorted(islice(known, NAMES_SHOWN)))
        more = f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else ""
        return f"allowed: {shown}{more}" if known else none

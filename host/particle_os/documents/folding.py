"""Folds errors, notes and lines of one kind, so that people see the others, too."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

from particle_os.errors import Problem

T = TypeVar("T")
# The members of a kind that are shown. One more is shown rather than folded.
SHOWN = 3
# The lines of a document that one text names.
PLACES = 8
# The parts in which messages of one kind differ: quotes, numbers, paths and names of files.
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[\d/]\S*|\S+\.\w\S*")


def kind_of(text: str) -> str:
    """The words of a message that are equal in all messages of its kind."""
    return _VARYING.sub("…", text)


def folded(items: Sequence[T], kind: Callable[[T], Hashable]) -> Iterator[tuple[T, Sequence[T]]]:
    """The items to show, in their order, each with the later items of its kind that it hides."""
    counts, seen = Counter(map(kind, items)), Counter[Hashable]()
    for index, item in enumerate(items):
        of_kind = kind(item)
        seen[of_kind] += 1
        if counts[of_kind] <= SHOWN + 1 or seen[of_kind] < SHOWN:
            yield item, ()
        elif seen[of_kind] == SHOWN:
            yield item, [later for later in items[index + 1 :] if kind(later) == of_kind]


def problems(found: Sequence[Problem]) -> Iterator[tuple[Problem, str | None]]:
    """The problems to show, each with a text about those that it hides."""
    for problem, hidden in folded(found, lambda p: (p.path, p.code, kind_of(p.message), p.hint)):
        yield problem, _more(hidden) if hidden else None


def notes(found: Sequence[Problem]) -> Iterator[str]:
    """The notes as texts, with a text in place of those that are folded."""
    for note, more in problems(found):
        yield str(note)
        if more:
            yield more


def lines(texts: Sequence[str]) -> Iterator[str]:
    """The lines of an output; a text stands for lines of one kind that follow each other."""
    for _, run in itertools.groupby(texts, kind_of):
        for line, hidden in folded([*run], kind_of):
            yield line
            if hidden:
                yield f"… and {len(hidden)} more lines like it"


def _more(hidden: Sequence[Problem]) -> str:
    lines = list(dict.fromkeys(str(problem.line) for problem in hidden))
    places = [*lines[:PLACES], *(["…"] if len(lines) > PLACES else [])]
    word = "line" if len(lines) == 1 else "lines"
    return f"and {len(hidden)} more like it, in {word} {', '.join(places)}"

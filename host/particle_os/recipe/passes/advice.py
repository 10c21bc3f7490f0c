"""Completes problems whose finder has no hint with the general advice for their code."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter

from particle_os.documents.document import Mark, Source
from particle_os.errors import InvalidDocument, Problem
from particle_os.recipe.model import stage_kinds

# The line and the column where a part of a document begins, and the word that 'explain' takes.
_Topic = tuple[tuple[int, int], str]
# `{explain}` is the command that explains the stage of the problem, or the whole recipe.
ADVICE = {
    "anchor": "write the value itself",
    "bad-file": "name a file with the expected content",
    "bad-key": "write a word, ':' and a value",
    "bad-order": "'qemu' stands once, at the end",
    "bad-tag": "put a text that begins with '!' in quotes",
    "bad-text": "write the character itself",
    "bad-type": "see '{explain}'",
    "bad-value": "see '{explain}'",
    "bad-variable": "see '${{…}}' in docs/recipes.md",
    "empty": "start with the output of 'particle-os init'",
    "foreign-recipe": "start with the output of 'particle-os init'",
    "include-cycle": "remove one of these includes",
    "missing-key": "add it, see '{explain}'",
    "missing-need": "add it in a stage before this one",
    "missing-value": "give it with --set NAME=VALUE, or declare a 'default'",
    "no-file": "correct the path: it is relative to the directory of this file",
    "not-utf-8": "save the file as UTF-8",
    "overwritten": "leave the file to that stage",
    "repeated-key": "remove one of the two",
    "too-complex": "divide it, or leave something out",
    "too-large": "divide it with 'include'",
    "too-many": "correct the other errors first",
    "unknown-key": "remove it, see '{explain}'",
    "unknown-stage": "'particle-os list stages' shows all stages",
    "unknown-unit": "install the package that has it in an earlier stage",
    "unknown-variable": "declare it in 'variables'",
    "unreadable": "correct the path, or let yourself read the file",
    "yaml": "look at the brackets, quotes and indentation here and in the line before",
}


def complete(source: Source) -> None:
    """Gives each problem of a document a hint."""
    topics: dict[str, list[_Topic]] = defaultdict(list)
    for mark, word in _topics(source):
        topics[str(mark.path)].append(((mark.line, mark.column), word))
    for found in topics.values():
        found.sort(key=itemgetter(0))
    source.problems = [_completed(p, _topic(topics[p.path], p)) for p in source.problems]


def added_to(invalid: InvalidDocument) -> InvalidDocument:
    """The error about a file that is no document, with a hint for each problem."""
    return InvalidDocument([_completed(problem, "recipe") for problem in invalid.problems])


def _completed(problem: Problem, topic: str) -> Problem:
    if problem.hint:
        return problem
    explain = f"particle-os explain {topic}"
    return replace(problem, hint=ADVICE[problem.code].format(explain=explain))


def _topic(topics: Sequence[_Topic], problem: Problem) -> str:
    """The type of the stage that a problem is in; 'recipe' for a problem outside of stages.

    `topics` are those of the problem's file, in their order.
    """
    following = bisect_right(topics, (problem.line, problem.column), key=itemgetter(0))
    return topics[following - 1][1] if following else "recipe"


def _topics(source: Source) -> Iterator[tuple[Mark, str]]:
    """The beginnings of the parts of a document, each with the word that 'explain' takes."""
    root = source.root
    for name, node in root.value.items() if isinstance(root.value, dict) else ():
        yield node.key or node.mark, "check" if name == "boot-test" else "recipe"
    stages = root.child("stages")
    found = stages.value if stages is not None and isinstance(stages.value, list) else []
    for stage in (*found, *source.left_out):
        kind = stage.child("type")
        named = kind is not None and isinstance(kind.value, str) and kind.value in stage_kinds()
        yield stage.mark, kind.value if named else "recipe"
    # Of two topics at one place, the last one counts.
    for item in source.included:
        kind = item.child("type")
        own = kind is not None and item.child("include") is None
        yield item.mark, str(kind.value) if kind is not None and own else "include"

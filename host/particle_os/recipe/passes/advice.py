"""Completes problems whose finder has no hint with the general advice for their code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from particle_os.documents.document import Mark, Node, Source
from particle_os.errors import InvalidDocument, Problem
from particle_os.recipe.model import stage_kinds

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
    source.problems = [_completed(p, _topic(source, p)) for p in source.problems]


def added_to(invalid: InvalidDocument) -> InvalidDocument:
    """The error about a file that is no document, with a hint for each problem."""
    return InvalidDocument([_completed(problem, "recipe") for problem in invalid.problems])


def _completed(problem: Problem, topic: str) -> Problem:
    if problem.hint:
        return problem
    explain = f"particle-os explain {topic}"
    return replace(problem, hint=ADVICE[problem.code].format(explain=explain))


def _topic(source: Source, problem: Problem) -> str:
    """The type of the stage that a problem is in; 'recipe' for a problem outside of stages."""
    place = Mark(Path(problem.path), problem.line, problem.column)
    before = [found for found in _topics(source.root) if found[0].path == place.path]
    return max((found for found in before if found[0] <= place), default=(place, "recipe"))[1]


def _topics(root: Node) -> Iterator[tuple[Mark, str]]:
    """The beginnings of the parts of a document, each with the word that 'explain' takes."""
    for name, node in root.value.items() if isinstance(root.value, dict) else ():
        yield node.key or node.mark, "check" if name == "boot-test" else "recipe"
    stages = root.child("stages")
    for stage in stages.value if stages is not None and isinstance(stages.value, list) else ():
        kind = stage.child("type")
        named = kind is not None and isinstance(kind.value, str) and kind.value in stage_kinds()
        yield stage.mark, kind.value if named else "recipe"

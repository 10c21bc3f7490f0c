"""Evaluates the conditions of stages about variables: `when: {variable: flavour, is: desktop}`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from particle_agent.contract.options import Options
from particle_agent.stages.base import When

from particle_os.documents import validation
from particle_os.documents.document import Key, Node, Source
from particle_os.documents.explanation import Vocabulary
from particle_os.errors import InvalidDocument
from particle_os.recipe.variables import Variables

WHEN, VARIABLE, IS, ARCHITECTURE = "when", "variable", "is", "architecture"


@dataclass(frozen=True, kw_only=True)
class _Conditional(Options):
    """The part of an `include` that the stages in its place do not have."""

    when: When


def apply(source: Source, stages: Node, variables: Variables) -> None:
    """Drops the stages whose conditions about variables do not hold, with a note for each.

    A condition about the architecture stays in the stage.
    """
    if isinstance(stages.value, list):
        stages.value = [item for item in stages.value if _holds(source, item, variables)]


def holds_for(source: Source, item: Node, architecture: str) -> bool:
    """Whether the rest of an item's condition, after `apply`, holds for an image.

    Notes the problems of the condition, and why an item is left out.
    """
    when = item.child(WHEN)
    if when is None:
        return True
    alone = Source(source.path)
    alone.root = Node({WHEN: when}, item.mark)
    try:
        found = validation.validate(alone, _Conditional, Vocabulary(names=_names))
    except InvalidDocument:
        source.problems += alone.problems
        return True
    wanted = found.when.architecture
    if wanted is None or architecture in wanted:
        return True
    why = f"it is for {' and '.join(wanted)}, not {architecture}"
    _leave_out(source, item, why)
    return False


def _names(key: Key) -> tuple[str, ...]:
    return (ARCHITECTURE, IS, VARIABLE) if key == (WHEN,) else ()


def _holds(source: Source, item: Node, variables: Variables) -> bool:
    when = item.child(WHEN) if isinstance(item.value, dict) else None
    if when is None or not isinstance(when.value, dict) or VARIABLE not in when.value:
        return True
    named, wanted = when.value[VARIABLE], when.value.get(IS)
    name = named.value
    if wanted is None or named.unknown or wanted.unknown or not isinstance(name, str):
        # The check of the types says what is wrong.
        return True
    if not variables.has(source, named.mark, name):
        return True
    value, expected = variables.value(name), wanted.plain()
    for option in (VARIABLE, IS):
        del when.value[option]
    if not when.value:
        del item.value[WHEN]
    if value is None or _equal(value, expected):
        return True
    # The value may be confidential, so the note shows the value that is missing.
    values = expected if isinstance(expected, list) else [expected]
    shown = " or ".join(
        f"'{str(each).lower() if each in (True, False) else each}'" for each in values
    )
    why = f"'{name}' is not {shown}"
    _leave_out(source, item, why)
    return False


def _leave_out(source: Source, item: Node, why: str) -> None:
    source.left_out.append(item)
    source.note(item.mark, "left-out", f"the stage {label(item)} is left out: {why}")


def _equal(value: Any, expected: Any) -> bool:
    """Whether a value is the expected one, or one of several expected ones."""
    if isinstance(expected, list) and not isinstance(value, list):
        return any(_equal(value, each) for each in expected)
    return type(value) is type(expected) and bool(value == expected)


def label(item: Node) -> str:
    """The name of an item of the stages in messages."""
    for key in ("name", "type", "include"):
        node = item.child(key)
        if node is not None and isinstance(node.value, str):
            return node.value
    return "there"

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
from particle_os.recipe.parameters.kinds import Value, as_kind, in_words, kind_of
from particle_os.recipe.parameters.variables import Variables

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
    found = check(source, item)
    wanted = found.architecture if found is not None else None
    if wanted is None or architecture in wanted:
        return True
    why = f"it is for {' and '.join(wanted)}, not {architecture}"
    _leave_out(source, item, why)
    return False


def check(source: Source, item: Node) -> When | None:
    """The rest of an item's condition, after `apply`; None without one. Notes its problems."""
    when = item.child(WHEN)
    if when is None:
        return None
    alone = Source(source.path)
    alone.root = Node({WHEN: when}, item.mark)
    try:
        return validation.validate(alone, _Conditional, Vocabulary(names=_names)).when
    except InvalidDocument:
        source.problems += alone.problems
        return None


def _names(key: Key) -> tuple[str, ...]:
    return (ARCHITECTURE, IS, VARIABLE) if key == (WHEN,) else ()


def _holds(source: Source, item: Node, variables: Variables) -> bool:
    when = item.child(WHEN) if isinstance(item.value, dict) else None
    if when is None or not isinstance(when.value, dict) or VARIABLE not in when.value:
        return True
    named, wanted = when.value[VARIABLE], when.value.get(IS)
    name = named.value
    if wanted is None or named.unknown or not isinstance(name, str):
        # The check of the types says what is wrong.
        return True
    if any(node.unknown for node in wanted.walk()) or not variables.has(source, named.mark, name):
        return True
    value, expected = variables.value(name), wanted.plain()
    wrong = value is None or not _has_kind(source, name, value, wanted)
    for option in (VARIABLE, IS):
        del when.value[option]
    if not when.value:
        del item.value[WHEN]
    if wrong or _equal(value, expected):
        return True
    # The value may be confidential, so the note shows the value that is missing.
    values = expected if isinstance(expected, list) else [expected]
    shown = " or ".join(
        f"'{str(each).lower() if each in (True, False) else each}'" for each in values
    )
    why = f"'{name}' is not {shown}"
    _leave_out(source, item, why)
    return False


def _has_kind(source: Source, name: str, value: Value, wanted: Node) -> bool:
    """Whether the variable can have the expected values; notes each that it cannot have."""
    before = len(source.problems)
    kind = kind_of(value)
    assert kind is not None
    several = isinstance(wanted.value, list) and kind != "list"
    if several and not wanted.value:
        message = f"{IS}: a list without a value is the value of no variable"
        source.problem(wanted.mark, "bad-value", message, f"write a value of '{name}'")
    for node in wanted.value if several else [wanted]:
        if kind_of(node.plain()) != kind:
            what = in_words(kind)
            message = f"{IS}: the variable '{name}' is {what}, and this value is not"
            source.problem(node.mark, "bad-type", message, as_kind(node, kind) or f"write {what}")
    return len(source.problems) == before


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

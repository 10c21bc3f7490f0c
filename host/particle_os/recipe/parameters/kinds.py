"""The kinds of values that variables have."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from particle_os.documents.document import Node
from particle_os.documents.parsing import plain_scalar

VariableKind = Literal["string", "integer", "boolean", "list"]
Value = str | int | bool | list[str]

KINDS = ("string", "integer", "boolean", "list")
ANY_IN_WORDS = "a string, an integer, true or false, or a list of strings"
IN_WORDS = MappingProxyType(
    {
        "string": "a string",
        "integer": "an integer",
        "boolean": "true or false",
        "list": "a list of strings",
    }
)


def in_words(kind: VariableKind | None) -> str:
    """A kind as messages name it; any kind for None."""
    return ANY_IN_WORDS if kind is None else IN_WORDS[kind]


def kind_of(value: object) -> VariableKind | None:
    """The kind of a plain value; None for a value that no variable has."""
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case str():
            return "string"
        case list() if all(isinstance(item, str) for item in value):
            return "list"
    return None


def strings(value: Value) -> list[str]:
    """The texts in a value."""
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, list) else []


def as_kind(node: Node, kind: VariableKind | None) -> str | None:
    """The hint to write a value as one of another kind."""
    given = node.value
    if kind == "string" and isinstance(given, bool | int | float):
        return f"put it in quotes: '{node.written or str(given).lower()}'"
    if kind == "list" and isinstance(given, str) and given.isprintable():
        return f"write the whole list: [{given}, …]"
    if isinstance(given, str) and kind_of(plain_scalar(given)) == kind:
        return f"write {given}, without quotes"
    return None

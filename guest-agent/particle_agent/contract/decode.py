"""Typed decoding of JSON into frozen dataclasses, and encoding.

The decoder covers the types that the wire and the stages use: scalars, `Literal`, `Annotated`,
`X | None`, `tuple[X, ...]`, `Mapping[X, Y]`, dataclasses, unions of dataclasses, and of a `Literal`
and a tuple. The `type` field of the JSON object selects the dataclass of a union.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from particle_agent.contract.options import (
    AtLeastOne,
    Between,
    Confidential,
    Seconds,
    Text,
    kebab_case,
)

T = TypeVar("T")
# What other readers of JSON hold in an integer.
LARGEST = (1 << 63) - 1


class DecodeError(ValueError):
    """The JSON value does not have the shape of its type. The message names the place."""


@functools.cache
def _fields(cls: type) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {kebab_case(f.name): (f, hints[f.name]) for f in dataclasses.fields(cls)}


def decode(kind: type[T], value: object, where: str = "value") -> T:
    """Converts `value`, which is parsed JSON, to the dataclass `kind`.

    `where` names the value in errors. Raises DecodeError when a key is unknown or missing, or a
    value has the wrong type.
    """
    return typing.cast(T, _decode(kind, value, where))


def decode_any(kinds: tuple[type, ...], value: object, where: str = "value") -> Any:
    """Converts `value` to the dataclass of `kinds` that the key "type" of `value` names.

    Raises DecodeError as `decode` does, and for an unknown type.
    """
    if not isinstance(value, Mapping):
        raise DecodeError(f"{where}: expected an object")
    tag = value.get("type")
    for kind in kinds:
        if _fields(kind)["type"][0].default == tag:
            return _decode(kind, value, where)
    raise DecodeError(f"{where}: unknown type {tag!r}")


def _decode_dataclass(kind: type, value: object, where: str) -> object:
    if not isinstance(value, Mapping):
        raise DecodeError(f"{where}: expected an object")
    fields = _fields(kind)
    if unknown := sorted(map(str, set(value) - set(fields))):
        raise DecodeError(f"{where}: unknown key {unknown[0]!r}")
    arguments = {
        fields[key][0].name: _decode(fields[key][1], item, f"{where}.{key}")
        for key, item in value.items()
    }
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise DecodeError(f"{where}: {error}") from error


def _decode(kind: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        decoded = _decode(arguments[0], value, where)
        for constraint in arguments[1:]:
            if isinstance(
                constraint, Text | Between | Seconds | AtLeastOne
            ) and not constraint.accepts(decoded):
                raise DecodeError(f"{where}: not accepted: {_shown(decoded, arguments)}")
        return decoded
    if origin is typing.Literal:
        if value not in arguments:
            raise DecodeError(f"{where}: expected one of {arguments}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = tuple(a for a in arguments if a is not type(None))
        if typing.get_origin(kinds[0]) is typing.Literal and len(kinds) > 1:
            word, several = kinds
            return _decode(several if isinstance(value, list) else word, value, where)
        return (
            decode_any(kinds, value, where) if len(kinds) > 1 else _decode(kinds[0], value, where)
        )
    if origin is tuple:
        if not isinstance(value, list):
            raise DecodeError(f"{where}: expected a list")
        return tuple(_decode(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise DecodeError(f"{where}: expected an object")
        return {
            _decode(arguments[0], name, where): _decode(arguments[1], item, f"{where}.{name}")
            for name, item in value.items()
        }
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), value, where)
    if kind is float and type(value) in (int, float):
        return _finite(value, where)
    if kind is int and type(value) is int and not -LARGEST <= value <= LARGEST:
        raise DecodeError(f"{where}: the number is too large")
    if type(value) is not kind:
        raise DecodeError(f"{where}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _finite(value: Any, where: str) -> float:
    """The number as float. JSON as Python reads it has NaN and Infinity, which no result holds."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DecodeError(f"{where}: expected a finite number")
    return number


def _shown(value: object, annotations: tuple[object, ...]) -> str:
    """The value for a message, or a placeholder for a confidential value."""
    hidden = any(isinstance(each, Confidential) for each in annotations)
    return "a confidential value" if hidden else repr(value)


def encode(value: object) -> Any:
    """Converts a dataclass, mapping, list or scalar to plain JSON data with kebab-case keys."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            kebab_case(f.name): encode(getattr(value, f.name)) for f in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {name: encode(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value

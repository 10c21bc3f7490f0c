"""Marks the values that no message may show. Their types declare them as confidential."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from particle_agent.contract.options import Confidential, kebab_case

from particle_os.documents.annotations import field_types
from particle_os.documents.document import Node


def mark(node: Node, kind: Any) -> None:
    """Sets `confidential` on the values below `node` that the annotated type `kind` declares so.

    Sets `open` on the other values that the type declares, and on no value of an unknown key.
    A text in place of a mapping with a confidential value is confidential, too: it may contain the
    value.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        markers = [argument for argument in arguments[1:] if isinstance(argument, Confidential)]
        if markers:
            conceal(node, public=all(marker.public for marker in markers))
        else:
            mark(node, arguments[0])
    elif origin is tuple:
        for item in node.value if isinstance(node.value, list) else [node]:
            mark(item, arguments[0])
    elif origin in (Union, types.UnionType):
        for argument in _possible(node, arguments):
            mark(node, argument)
    elif is_dataclass(kind):
        _mark_options(node, kind)
    elif origin is not dict and not isinstance(node.value, dict | list):
        node.open = True


def conceal(node: Node, *, public: bool = False) -> None:
    """Makes a value and everything in it confidential; see `Node` for `public`."""
    for inner in node.walk():
        inner.public = public and (inner.public or not inner.confidential)
        inner.confidential = True


def _mark_options(node: Node, kind: Any) -> None:
    if not isinstance(node.value, dict):
        if any(markers for _, _, markers in _options(kind)):
            conceal(node)
        return
    for name, hint, markers in _options(kind):
        value = node.value.get(name)
        if value is not None and not _is_open(node, markers):
            mark(value, hint)


@functools.cache
def _options(kind: type) -> tuple[tuple[str, Any, tuple[Confidential, ...]], ...]:
    """The name, the annotated type and the marks of each option of a class.

    The result is cached: finding the marks takes longer than setting them.
    """
    hints = field_types(kind).items()
    return tuple((kebab_case(name), hint, tuple(_markers(hint))) for name, hint in hints)


def _is_open(options: Node, markers: tuple[Confidential, ...]) -> bool:
    """Whether the other options of a confidential value allow messages to show it."""
    for marker in markers:
        named = options.child(marker.option) if marker.option else None
        # The other value of a repeated key may be the right one.
        if named is not None and not named.repeated and named.value in marker.open_with:
            return True
    return False


def _possible(node: Node, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    """The kinds that the `type` of a mapping names, or all kinds if it names none."""
    tag = node.child("type")
    named = [k for k in kinds if tag is not None and getattr(k, "type", None) == tag.value]
    return tuple(named) or kinds


def _markers(hint: Any) -> Iterator[Confidential]:
    """The marks in an annotated type and its lists and unions, but not in its classes."""
    for argument in get_args(hint):
        if isinstance(argument, Confidential):
            yield argument
        else:
            yield from _markers(argument)

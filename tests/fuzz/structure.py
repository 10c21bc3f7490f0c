"""Mutates the structure of JSON documents: bytes changed at random seldom leave JSON behind."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

NUL = b"\0"
LONGEST_KEY = 64
# Values that parsers get wrong: borders of integers, floats without an order, texts with a meaning.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1 << 31, 1 << 63, -(1 << 63), 1 << 64, 10**400, 0.5, 1e308,
    float("nan"), float("inf"), "", "a", "0", "/", "..", "../a", "/a\nb", "\x1b[31m", "\0",
    "\ud800", "a" * 5000, "sha256:" + "0" * 64, "${a}", "${", "*", "-a", "%s", "::error::",
    [], {}, [[]], [None], {"": None}, {"a": {}},
)  # fmt: skip


def mutated(data: bytes, draw: random.Random) -> bytes | None:
    """`data` with one to four changes in its structure; None if none of it is JSON.

    NUL parts the documents of an input that holds several.
    """
    parts = data.split(NUL)
    documents = dict(_documents(parts))
    if not documents:
        return None
    index, document = draw.choice(list(documents.items()))
    for _ in range(draw.randrange(1, 5)):
        document = _changed(document, draw)
    parts[index] = json.dumps(document).encode("utf-8", "surrogatepass")
    return NUL.join(parts)


def _documents(parts: list[bytes]) -> Iterator[tuple[int, Any]]:
    for index, part in enumerate(parts):
        try:
            document = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, (dict, list)):
            yield index, document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container of a document together with each of its keys or positions."""
    waiting = [value]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            yield container, key
            if isinstance(container[key], (dict, list)):
                waiting.append(container[key])


def _changed(document: Any, draw: random.Random) -> Any:
    """The document with one change, made in place where it can be."""
    places = list(_places(document)) if isinstance(document, (dict, list)) else []
    value = copy.deepcopy(draw.choice(VALUES))
    if not places or draw.randrange(50) == 0:
        return value
    container, key = draw.choice(places)
    other = draw.choice(places)
    match draw.randrange(6):
        case 0:
            del container[key]
        case 1:
            # A copy: two places that share a value would make a document without an end.
            container[key] = copy.deepcopy(other[0][other[1]])
        case 2 if isinstance(container, dict):
            container[str(value)[:LONGEST_KEY]] = container.pop(key)
        case 2:
            container.insert(key, container[key])
        case 3:
            container[key] = [container[key]] * draw.choice([1, 2, 300])
        case 4:
            container[key] = {"a": container[key]}
        case _:
            container[key] = value
    return document

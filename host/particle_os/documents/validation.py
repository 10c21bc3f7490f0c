"""Turns documents into instances of options classes, validated by pydantic."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import textwrap
from collections.abc import Hashable, Iterator
from itertools import pairwise
from typing import Any, TypeVar, cast

import pydantic
from particle_agent.contract.options import Options, kebab_case

from particle_os.documents.document import Source
from particle_os.documents.explanation import RULE, UNKNOWN_KEY, Vocabulary, explain, path_of

T = TypeVar("T")
# The most errors of one document that are reported.
MOST = 1000


@functools.cache
def _adapter(kind: Hashable) -> pydantic.TypeAdapter[Any]:
    """pydantic's adapter for a dataclass, made on first use: the recipe's takes a while."""
    return pydantic.TypeAdapter(cast(Any, kind))


def json_schema(kind: type[Options]) -> dict[str, Any]:
    """The JSON Schema of an options class, with descriptions from the docstrings.

    Older versions of pydantic read none of dataclasses, and newer ones none that are inherited.
    """
    schema = pydantic.TypeAdapter(kind).json_schema()
    classes: dict[str, type] = {found.__name__: found for found in _below(Options)}
    described: list[tuple[type, dict[str, Any]]] = [(kind, schema)]
    for name, definition in schema.get("$defs", {}).items():
        if name in classes:
            described.append((classes[name], definition))
    for each, definition in described:
        definition.setdefault("description", inspect.cleandoc(each.__doc__ or ""))
        for field, text in docstrings(each).items():
            if (option := definition.get("properties", {}).get(kebab_case(field))) is not None:
                option.setdefault("description", text)
    return schema


def _below(kind: type) -> Iterator[type]:
    direct: list[type] = type.__subclasses__(kind)
    for each in direct:
        yield each
        yield from _below(each)


def docstrings(kind: type) -> dict[str, str]:
    """The texts below the fields of a class and of those that it inherits from."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if issubclass(each, Options) and each is not Options:
            found |= _own_docstrings(each)
    return found


def _own_docstrings(kind: type) -> dict[str, str]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in pairwise(node.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(doc))),
            ):
                found[name] = inspect.cleandoc(doc)
    return found


def validate(source: Source, kind: type[T], words: Vocabulary) -> T:
    """Returns the document as a `kind`. Raises InvalidDocument with all errors of the document.

    `words` supplies the words of messages and hints. A variable that is a number or a boolean
    becomes a text in the document where the `kind` has a text.
    """
    try:
        model: T = _adapter(cast(Hashable, kind)).validate_json(json.dumps(source.data))
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False)
        if _made_texts(source, found, words):
            return validate(source, kind, words)
        found += _broken_rules(source, kind, found, words)
        for item in found[:MOST]:
            # pydantic counts only the valid items of a list; invalid items have their own errors.
            if item["type"] != "too_short" or not item["input"]:
                explain(source, item, words)
        if len(found) > MOST:
            source.problem(None, "too-many", f"there are {len(found) - MOST} more errors")
        raise source.invalid() from None
    if source.problems:
        raise source.invalid()
    return model


def _made_texts(source: Source, found: list[Any], words: Vocabulary) -> bool:
    """Turns the variables to texts that are no text in its place; False if there is none."""
    wanted = [i for i in found if i["type"] == "string_type" or "text" in i.get("ctx", {})]
    keys = [path_of(source, item["loc"]) for item in wanted]
    # The text of some numbers has another meaning, such as that of an octal mode.
    nodes = [source.node(key) for key in keys if not {*key[-1:]} & {*words.number_hints}]
    given = [n for n in nodes if n and n.made_of and isinstance(n.value, int)]
    for node in given:
        node.value = str(node.value).lower()
    return bool(given)


def _broken_rules(source: Source, kind: type, found: list[Any], words: Vocabulary) -> list[Any]:
    """Finds the broken rules of classes that pydantic skips because of an unknown key.

    Replaces each unknown key by the key that was probably meant, or drops it, and validates again.
    """
    data = source.data
    unknown = [item for item in found if item["type"] in UNKNOWN_KEY]
    for item in unknown:
        *path, name = path_of(source, item["loc"])
        mapping = functools.reduce(lambda value, part: value[part], path, data)
        value = mapping.pop(name)
        if near := words.meant(str(name), list(words.names(tuple(path)))):
            mapping.setdefault(near, value)
    try:
        if unknown:
            _adapter(cast(Hashable, kind)).validate_json(json.dumps(data))
    except pydantic.ValidationError as error:
        known = [item["loc"] for item in found if item["type"] == RULE]
        again = error.errors(include_url=False)
        return [i for i in again if i["type"] == RULE and i["loc"] not in known]
    return []


def valid(kind: Hashable, data: object) -> Any:
    """`data` as a `kind`; None when it is not valid."""
    try:
        return _adapter(kind).validate_json(json.dumps(data))
    except pydantic.ValidationError:
        return None

"""What pydantic finds wrong with a document, told by line and column in words for people."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shlex
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar, cast, get_args

import pydantic
from particle_agent.contract import keys
from particle_agent.contract.options import Faults, Options

from particle_os.documents.document import Key, Node, Source
from particle_os.documents.words import did_you_mean, nearest
from particle_os.errors import InvalidDocument

T = TypeVar("T")
# Errors of one document that are told.
MOST = 1000
SPECIAL_HINTS = {
    "password": "the password itself goes into a secret, see 'password-secret', or its hash into "
    "'password-hash'"
}
# The most characters of a value in a message.
SHOWN = 80
# One of these makes the item of a list of stages.
ITEM_KEYS = ("type", "include")
# A text that needs no quotes in YAML's lists.
PLAIN = re.compile(r"[A-Za-z/._][A-Za-z0-9/._+=:-]*[A-Za-z0-9/._+=-]")
# Of pydantic's ConfigDict.
DOCSTRINGS = "use_attribute_docstrings"
# pydantic's errors about a key, and about what a class says of its options among themselves.
UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
RULE = "value_error"
# pydantic's errors about the kind of a value, in YAML's words.
PLAIN_TYPES = {
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "dataclass_exact_type": "a mapping",
    "model_attributes_type": "a mapping",
}


@functools.cache
def _adapter(kind: Hashable) -> pydantic.TypeAdapter[Any]:
    """pydantic's view of a dataclass, made when it is needed: that of a recipe takes a while."""
    return pydantic.TypeAdapter(cast(Any, kind))


def json_schema(kind: type[Options]) -> dict[str, Any]:
    """The JSON Schema of an options class, with descriptions from the docstrings.

    Only here does pydantic read those: it takes it four times as long as all the rest.
    """
    Options.__pydantic_config__[DOCSTRINGS] = True
    try:
        return pydantic.TypeAdapter(kind).json_schema()
    finally:
        del Options.__pydantic_config__[DOCSTRINGS]


def validate(source: Source, kind: type[T], names: Callable[[Key], Iterable[str]]) -> T:
    """The document as a `kind`; raises InvalidDocument with all that is wrong with it.

    `names` lists the keys (or where words are due, the words) that are right at a path, from which
    the nearest is offered.
    """
    try:
        model: T = _adapter(cast(Hashable, kind)).validate_json(json.dumps(source.data))
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False)
        found += _broken_rules(source, kind, found, names)
        for item in found[:MOST]:
            # pydantic counts only the valid items of a list; those that are not have their own.
            if item["type"] != "too_short" or not item["input"]:
                _explain(source, item, names)
        if len(found) > MOST:
            source.problem(None, "too-many", f"there are {len(found) - MOST} errors more")
        raise InvalidDocument(source.problems) from None
    if source.problems:
        raise InvalidDocument(source.problems)
    return model


def _broken_rules(
    source: Source, kind: type, found: list[Any], names: Callable[[Key], Iterable[str]]
) -> list[Any]:
    """What pydantic finds of the rules of classes that it does not make for an unknown key.

    Such a key is taken for the one that was probably meant, or left out.
    """
    data = source.data
    unknown = [item for item in found if item["type"] in UNKNOWN_KEY]
    for item in unknown:
        *path, name = _path_of(source, item["loc"])
        mapping = functools.reduce(lambda value, part: value[part], path, data)
        value = mapping.pop(name)
        if near := nearest(str(name), names(tuple(path))):
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
    """`data` as a `kind`; None when anything is wrong with it."""
    try:
        return _adapter(kind).validate_json(json.dumps(data))
    except pydantic.ValidationError:
        return None


def options_class(annotation: Any, data_type: str | None = None) -> Any:
    """The options class within an annotation: through Annotated, tuple, and unions by type."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        if data_type is None or getattr(annotation, "type", None) in (None, data_type):
            return annotation
        return None
    for argument in get_args(annotation):
        if found := options_class(argument, data_type):
            return found
    return None


def _path_of(source: Source, location: tuple[int | str, ...]) -> Key:
    """pydantic's location without the union tags that it puts in."""
    key: Key = ()
    node: Node | None = source.root
    for index, part in enumerate(location):
        last = index == len(location) - 1
        value = node.value if node is not None else None
        if index and isinstance(location[index - 1], int) and _is_tag(node, part):
            continue
        if isinstance(value, dict) and (part in value or last):
            node = value.get(str(part))
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            node = value[part]
        else:
            continue
        key = (*key, part)
    return key


def _is_tag(node: Node | None, part: int | str) -> bool:
    """Whether a part of a location, after the number of an item, is only the item's `type`.

    An option may have the same name.
    """
    kind = node.child("type") if node is not None else None
    return kind is not None and kind.value == part


def _shown(key: Key) -> str:
    """The last name of a path, with the number of the list's item: `formats[1]`."""
    name = next((part for part in reversed(key) if isinstance(part, str)), "")
    return f"{name}[{key[-1]}]" if key and isinstance(key[-1], int) else name


def _quoted(given: Any) -> str:
    """What was found, in a message: of lists and mappings, which may hold passwords, the kind."""
    if isinstance(given, str) and keys.is_private(given):
        return "a private key"
    if isinstance(given, dict | list):
        return "a mapping" if isinstance(given, dict) else "a list"
    text = json.dumps(given, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _items(given: object, name: str) -> list[str]:
    """The items of the list that was meant by a single value."""
    words = [given]
    if isinstance(given, str):
        try:
            words = list(shlex.split(given) if name == "command" else given.split())
        except ValueError:
            pass
    return [w if isinstance(w, str) and PLAIN.fullmatch(w) else json.dumps(w) for w in words]


def _meant_type(given: Any, allowed: list[str]) -> str | None:
    """The hint for a stage that is written as its name alone, or as a mapping under its name."""
    name = next(iter(given), None) if isinstance(given, dict) else given
    if not isinstance(name, str) or nearest(name, allowed) is None:
        return None
    return f"write '- type: {nearest(name, allowed)}', and its options beside it"


def _is_scalar_for_text(item: Any) -> bool:
    """Whether YAML reads what stands there as a number or a truth value, where a text is due."""
    is_text = item["type"] == "string_type" or "text" in item.get("ctx", {})
    return is_text and isinstance(item.get("input"), bool | int | float)


def _told(source: Source, kind: str, key: Key) -> bool:
    """Whether the error only follows from another one that is told already."""
    found = source.node((*key, "type") if kind == "union_tag_invalid" else key)
    return (found is not None and found.unknown) or (kind == "too_short" and source.incomplete)


def _explain(source: Source, item: Any, names: Callable[[Key], Iterable[str]]) -> None:
    kind, context = str(item["type"]), item.get("ctx", {})
    location = item["loc"]
    # pydantic's mark for what is wrong with the name of an entry, not with its value.
    of_key = location[-1:] == ("[key]",)
    key = _path_of(source, location[:-1] if of_key else location)
    name = _shown(key)
    mark = source.mark(key, of_key=of_key)
    if _told(source, kind, key):
        return
    given = item.get("input")
    at = source.node(key)
    shown = at.written if at is not None and at.written and not of_key else _quoted(given)
    if any(str(part).startswith("password") for part in key):
        shown = "something else"
    if kind in UNKNOWN_KEY:
        allowed = list(names(key[:-1]))
        hint = did_you_mean(nearest(name, allowed), allowed)
        source.problem(source.mark(key, of_key=True), "unknown-key", f"unknown key '{name}'", hint)
    elif kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        source.problem(source.mark(key[:-1]), "missing-key", f"the key '{name}' is missing")
    elif kind == "union_tag_invalid":
        allowed = list(names((*key, "type")))
        word = context["tag"]
        named = given.get("type") if isinstance(given, dict) else word
        if not isinstance(named, str):
            mark = source.mark((*key, "type"))
            message = f"type: expected a stage's name, found {_quoted(named)}"
            source.problem(mark, "bad-type", message)
            return
        source.problem(
            source.mark((*key, "type")),
            "unknown-stage",
            f"there is no stage '{word}'",
            # Older recipes have long names.
            did_you_mean(nearest(word.rpartition(".")[2], allowed), allowed),
        )
    elif kind == "union_tag_not_found":
        allowed = list(names((*key, "type")))
        words = given if isinstance(given, dict) else ()
        if word := next((word for word in words if nearest(word, ITEM_KEYS)), None):
            hint = did_you_mean(nearest(word, ITEM_KEYS), [])
            mark = source.mark((*key, word), of_key=True)
            source.problem(mark, "unknown-key", f"unknown key '{word}'", hint)
            return
        hint = _meant_type(given, allowed)
        source.problem(mark, "missing-key", "the key 'type' is missing", hint)
    elif kind in PLAIN_TYPES:
        message = f"{name or 'document'}: expected {PLAIN_TYPES[kind]}, found {shown}"
        hint = None
        if PLAIN_TYPES[kind] == "a list" and not isinstance(given, dict | list | None):
            hint = f"write [{', '.join(_items(given, name))}]"
        elif key[:1] == ("stages",) and len(key) == 2:
            hint = _meant_type(given, list(names((*key, "type"))))
        source.problem(mark, "bad-type", message, hint)
    elif kind == "too_short":
        source.problem(mark, "bad-value", f"{name}: at least one item is needed")
    elif kind == RULE:
        error = context["error"]
        if isinstance(error, Faults):
            for place, message in error.found:
                source.problem(source.mark((*key, *place)), "bad-value", message)
            return
        message = str(error)
        # Of several options that exclude each other, the one that is named first.
        named = source.node((*key, message.partition(":")[0]))
        source.problem(named.mark if named else mark, "bad-value", message)
    elif kind == "not_accepted":
        what = context["what"]
        message = f"{name or 'value'}: expected {what}, found {shown}"
        hint = None
        if _is_scalar_for_text(item) and re.fullmatch(context["text"], shown):
            hint = "put it in quotes"
        if _is_scalar_for_text(item) and key[-1:] == ("mode",):
            # What was written in octal is shown as a decimal number.
            hint = "put it in quotes, in octal digits as in '0755'"
        guess = context.get("meant")
        if guess is not None and isinstance(given, str) and (meant := guess(given)):
            hint = did_you_mean(meant, [])
        said = given if isinstance(given, dict) else [given]
        known = [word for word in said if isinstance(word, str)]
        if near := next(filter(None, (nearest(word, names(key)) for word in known)), None):
            hint = did_you_mean(near, [])
        source.problem(mark, "bad-value", message, hint)
    elif kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context["expected"]))
        near = nearest(str(item.get("input")), allowed)
        wanted = str(context["expected"]).replace("True", "true").replace("False", "false")
        message = f"{name}: expected {wanted}, found {shown}"
        hint = f"did you mean '{near}'?" if near else SPECIAL_HINTS.get(name)
        source.problem(mark, "bad-value", message, hint)
    else:
        hint = None
        if _is_scalar_for_text(item):
            hint = "put it in quotes"
        if kind == "bool_type":
            hint = "write true or false"
        message = f"{name or 'document'}: {str(item['msg']).removeprefix('Input ')}, found {shown}"
        code = "bad-type" if kind.endswith(("_type", "_parsing")) else "bad-value"
        source.problem(mark, code, message, hint)

"""Explains pydantic's errors to people, each with its line and column."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from particle_agent.contract import keys
from particle_agent.contract.commands import as_script, needs_shell
from particle_agent.contract.hosts import LIST, WORD
from particle_agent.contract.options import Faults, guess_for

from particle_os.documents.document import Key, Mark, Node, Source
from particle_os.documents.words import (
    VARIABLE_HINT,
    did_you_mean,
    nearest,
    shown_key,
    unlike_a_path,
)
from particle_os.errors import without_credentials

# The most characters of a value in a message.
SHOWN = 80
# The text of messages in place of a confidential value.
NOT_SHOWN = "something else"
# A text that needs no quotes in YAML's lists.
PLAIN = re.compile(r"[A-Za-z/._][A-Za-z0-9/._+=:-]*[A-Za-z0-9/._+=-]")
# The words that mean a boolean elsewhere.
BOOLEANS = {"true": ("yes", "on", "y", "true", "1"), "false": ("no", "off", "n", "false", "0")}
TEMPLATE = re.compile(r"\{\{.*\}\}")
# pydantic's errors about an unknown key, and about a rule of a class for its options.
UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
RULE = "value_error"
EXPECTED = {
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_type": "expected an integer",
    "int_parsing": "expected an integer",
    "int_from_float": "expected an integer",
    "string_type": "expected a string",
}
# pydantic's errors about the kind of a value, in YAML's words.
PLAIN_TYPES = {
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "dataclass_exact_type": "a mapping",
    "model_attributes_type": "a mapping",
}


@dataclass(frozen=True)
class Vocabulary:
    """The words of one kind of document for messages and hints.

    `names` lists the valid keys, or the valid words, at a path. `is_item` recognises the items of a
    list of several kinds, and `item` is the noun for such an item. Each item has one of
    `item_keys`. `unknown_item` is the code of the error about a kind that does not exist. `hints`
    gives the replacement for an unknown word and `number_hints` the replacement for a number, both
    by the option's name. `synonyms` are words of other programs for a key, and
    `key_hints` say what takes the place of an unknown key or item. The options in
    `commands` are split as a shell splits them. `elsewhere` says where an unknown key belongs,
    `container` what to write in place of a value that must be a mapping, and `rules` what to do
    about a broken rule, by a part of its message.
    """

    names: Callable[[Key], Iterable[str]]
    item: str = "item"
    unknown_item: str = "unknown-item"
    is_item: Callable[[Key], bool] = lambda key: False
    item_keys: tuple[str, ...] = ("type",)
    hints: Mapping[str, str] = field(default_factory=dict)
    number_hints: Mapping[str, str] = field(default_factory=dict)
    commands: Collection[str] = ()
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    key_hints: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Callable[[Key], str | None] = lambda key: None
    container: Callable[[Key, Any], str | None] = lambda key, given: None
    rules: Mapping[str, str] = field(default_factory=dict)

    def meant(self, word: str, allowed: list[str]) -> str | None:
        """The word in `allowed` that was probably meant by `word`."""
        known = self.synonyms.get(word, ())
        return next((each for each in known if each in allowed), None) or nearest(word, allowed)

    def rule_hint(self, message: str) -> str | None:
        """The hint about a broken rule."""
        return next((hint for part, hint in self.rules.items() if part in message), None)


class _Fault:
    """One of pydantic's errors, with the value at its place in the document."""

    def __init__(self, source: Source, item: Any, words: Vocabulary) -> None:
        self.source = source
        self.words = words
        self.kind = str(item["type"])
        self.context: dict[str, Any] = item.get("ctx", {})
        self.given = item.get("input")
        self.pydantic_message = str(item["msg"])
        location = item["loc"]
        # pydantic marks an error in the name of an entry, not in its value, with "[key]".
        self.of_key = location[-1:] == ("[key]",)
        self.key = path_of(source, location[:-1] if self.of_key else location)
        self.node = source.node(self.key)
        self.mark = source.mark(self.key, of_key=self.of_key)

    @property
    def name(self) -> str:
        """The last name of the path, with the number of the list's item: `formats[1]`."""
        name = shown_key(next((part for part in reversed(self.key) if isinstance(part, str)), ""))
        numbered = self.key and isinstance(self.key[-1], int)
        return f"{name}[{self.key[-1]}]" if numbered else name

    @property
    def confidential(self) -> bool:
        """Whether no message may show the value."""
        return any(node.confidential for node in self.source.nodes(self.key))

    @property
    def shown(self) -> str:
        """The value as messages show it."""
        if self.confidential and not _kind_shown(self.given):
            return NOT_SHOWN
        if self.node is not None and self.node.written and not self.of_key:
            return self.node.written
        of_key = self.of_key and isinstance(self.given, str)
        return quoted(shown_key(self.given) if of_key else self.given)

    @property
    def follows(self) -> bool:
        """Whether the error only follows from another error that has been reported."""
        tagged = self.kind == "union_tag_invalid"
        found = self.source.node((*self.key, "type") if tagged else self.key)
        unknown = found is not None and found.unknown
        return unknown or (self.kind == "too_short" and self.source.incomplete)

    @property
    def is_scalar_for_text(self) -> bool:
        """Whether the value must be a text, and YAML reads it as a number or a boolean."""
        is_text = self.kind == "string_type" or "text" in self.context
        return is_text and isinstance(self.given, bool | int | float)

    def names(self, *more: str) -> list[str]:
        """The valid names at the place of the error, or at `more` below it."""
        return list(self.words.names((*self.key, *more)))

    def meant(self, word: str, allowed: list[str]) -> str | None:
        """The word in `allowed` that was probably meant by `word`."""
        return self.words.meant(word, allowed)

    def is_clear(self, word: str, allowed: list[str]) -> bool:
        """Whether one of the words is meant for certain."""
        spelled = word.replace("_", "-").lower()
        if any(each in allowed for each in self.words.synonyms.get(word, ())):
            return True
        return bool(difflib.get_close_matches(spelled, allowed, n=1, cutoff=0.8))

    def problem(self, mark: Mark, code: str, message: str, hint: str | None = None) -> None:
        self.source.problem(mark, code, message, hint)


def explain(source: Source, item: Any, words: Vocabulary) -> None:
    """Adds one of pydantic's errors to the problems of `source`, in words for people."""
    fault = _Fault(source, item, words)
    if not fault.follows:
        EXPLANATIONS.get(fault.kind, _any_other)(fault)


def path_of(source: Source, location: tuple[int | str, ...]) -> Key:
    """pydantic's location without the union tags that pydantic inserts."""
    key: Key = ()
    node: Node | None = source.root
    for index, part in enumerate(location):
        last = index == len(location) - 1
        value = node.value if node is not None else None
        if index and isinstance(location[index - 1], int) and _is_tag(node, part):
            continue
        if part in (WORD, LIST):
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


def _unknown_key(fault: _Fault) -> None:
    allowed = list(fault.words.names(fault.key[:-1]))
    word = fault.name.rstrip(":=…")
    hint = fault.words.key_hints.get(fault.name)
    if hint is None and not fault.is_clear(word, allowed):
        hint = fault.words.elsewhere(fault.key)
    hint = hint or did_you_mean(fault.meant(word, allowed), allowed)
    mark = fault.source.mark(fault.key, of_key=True)
    fault.problem(mark, "unknown-key", f"unknown key '{fault.name}'", hint)


def _missing_key(fault: _Fault) -> None:
    mark = fault.source.mark(fault.key[:-1])
    fault.problem(mark, "missing-key", f"the key '{fault.name}' is missing")


def _unknown_item(fault: _Fault) -> None:
    noun, word = fault.words.item, fault.context["tag"]
    mark = fault.source.mark((*fault.key, "type"))
    named = fault.given.get("type") if isinstance(fault.given, dict) else word
    if not isinstance(named, str):
        message = f"type: expected a {noun}'s name, found {quoted(named)}"
        fault.problem(mark, "bad-type", message)
        return
    allowed = fault.names("type")
    # The last part of an old, long name is the new name.
    near = nearest(word.rpartition(".")[2], allowed)
    hint = fault.words.key_hints.get(word) or did_you_mean(near, allowed)
    fault.problem(mark, fault.words.unknown_item, f"there is no {noun} '{word}'", hint)


def _item_without_type(fault: _Fault) -> None:
    possible = fault.words.item_keys
    words = fault.given if isinstance(fault.given, dict) else ()
    if word := next((word for word in words if nearest(word, possible)), None):
        mark = fault.source.mark((*fault.key, word), of_key=True)
        hint = did_you_mean(nearest(word, possible), [])
        fault.problem(mark, "unknown-key", f"unknown key '{shown_key(word)}'", hint)
        return
    fault.problem(fault.mark, "missing-key", "the key 'type' is missing", _meant_item(fault))


def _wrong_container(fault: _Fault) -> None:
    wanted = PLAIN_TYPES[fault.kind]
    hint = None
    if wanted == "a list" and isinstance(fault.given, dict):
        hint = "begin each item of the list with '- '"
    elif wanted == "a list" and not isinstance(fault.given, list | None):
        is_command = fault.name in fault.words.commands
        items = _items(fault.given, is_command)
        # No list has true or false as an item.
        unlikely = fault.confidential or isinstance(fault.given, bool)
        hint = None if unlikely else f"write [{', '.join(items)}]"
        if fault.words.is_item((*fault.key, 0)):
            hint = f"write '- type: {fault.given}' in a line below" if hint else None
        if hint and is_command and isinstance(fault.given, str) and needs_shell(fault.given):
            hint = as_script(fault.given)
        if hint and TEMPLATE.search(str(fault.given)):
            hint = VARIABLE_HINT
    elif fault.words.is_item(fault.key):
        hint = _meant_item(fault)
    elif wanted == "a mapping":
        hint = fault.words.container(fault.key, fault.given)
    message = f"{fault.name or 'document'}: expected {wanted}, found {fault.shown}"
    fault.problem(fault.mark, "bad-type", message, hint)


def _too_short(fault: _Fault) -> None:
    fault.problem(fault.mark, "bad-value", f"{fault.name}: at least one item is needed")


def _too_long(fault: _Fault) -> None:
    most = fault.context["max_length"]
    fault.problem(fault.mark, "bad-value", f"{fault.name}: at most {most} items are allowed")


def _broken_rule(fault: _Fault) -> None:
    error = fault.context["error"]
    if isinstance(error, Faults):
        for place, message in error.found:
            mark, hint = fault.source.mark((*fault.key, *place)), fault.words.rule_hint(message)
            fault.problem(mark, "bad-value", message, hint)
        return
    message = str(error)
    # The message begins with the name of the option that is at fault.
    named = fault.source.node((*fault.key, message.partition(":")[0]))
    mark, hint = named.mark if named else fault.mark, fault.words.rule_hint(message)
    fault.problem(mark, "bad-value", message, hint)


def _not_accepted(fault: _Fault) -> None:
    message = f"{fault.name or 'value'}: expected {fault.context['what']}, found {fault.shown}"
    fault.problem(fault.mark, "bad-value", message, _word_meant(fault) or _text_meant(fault))


def _word_meant(fault: _Fault) -> str | None:
    """The hint with a valid word that is near the given word."""
    given = fault.given
    values = given if isinstance(given, dict) else [given]
    known = [word for word in values if isinstance(word, str)]
    near = next(filter(None, (fault.meant(word, fault.names()) for word in known)), None)
    return did_you_mean(near, []) if near else None


def _text_meant(fault: _Fault) -> str | None:
    """The hint for a text that YAML reads as a number, or whose meaning the type guesses."""
    given, pattern = fault.given, fault.context.get("text", "")
    if isinstance(given, str) and not fault.confidential and TEMPLATE.search(given):
        return VARIABLE_HINT
    if isinstance(given, str) and (meant := guess_for(pattern, given)):
        return did_you_mean(meant, [])
    if not fault.is_scalar_for_text:
        return None
    if hint := fault.words.number_hints.get(str(fault.key[-1])) if fault.key else None:
        variable = fault.node.made_of[:1] if fault.node else ()
        return f"{hint}, in the variable '{variable[0]}'" if variable else hint
    return "put it in quotes" if re.fullmatch(fault.context["text"], fault.shown) else None


def _no_such_word(fault: _Fault) -> None:
    expected = str(fault.context["expected"])
    words = re.findall(r"'([^']*)'", expected)
    near = nearest(str(fault.given), words)
    if isinstance(fault.given, bool) and (yes := "yes" if fault.given else "no") in words:
        near = yes
    wanted = expected.replace("True", "true").replace("False", "false")
    hint = did_you_mean(near, []) if near else fault.words.hints.get(fault.name)
    fault.problem(
        fault.mark, "bad-value", f"{fault.name}: expected {wanted}, found {fault.shown}", hint
    )


def _any_other(fault: _Fault) -> None:
    hint = "put it in quotes" if fault.is_scalar_for_text else None
    if fault.kind == "bool_type":
        word = str(fault.given).lower()
        meant = next((m for m, words in BOOLEANS.items() if word in words), "true or false")
        hint = f"write {meant}, without quotes" if meant == word else f"write {meant}"
    plain = EXPECTED.get(fault.kind)
    why = plain or fault.pydantic_message.removeprefix("Input ")
    code = "bad-type" if fault.kind.endswith(("_type", "_parsing")) else "bad-value"
    fault.problem(fault.mark, code, f"{fault.name or 'document'}: {why}, found {fault.shown}", hint)


EXPLANATIONS: Mapping[str, Callable[[_Fault], None]] = {
    **dict.fromkeys(UNKNOWN_KEY, _unknown_key),
    **dict.fromkeys(("missing", "missing_argument", "missing_keyword_only_argument"), _missing_key),
    **dict.fromkeys(PLAIN_TYPES, _wrong_container),
    "union_tag_invalid": _unknown_item,
    "union_tag_not_found": _item_without_type,
    "too_short": _too_short,
    "too_long": _too_long,
    RULE: _broken_rule,
    "not_accepted": _not_accepted,
    "literal_error": _no_such_word,
}


def quoted(given: Any) -> str:
    """A value as a message quotes it."""
    if kind := _kind_shown(given):
        return kind
    text = without_credentials(json.dumps(given, ensure_ascii=False, default=str))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _kind_shown(given: Any) -> str | None:
    """The kind of a value that may contain a secret; None for a value that messages show."""
    if isinstance(given, str) and keys.is_private(given):
        return "a private key"
    if isinstance(given, str) and re.search("[\r\n]", given.strip()):
        return unlike_a_path(given)
    if isinstance(given, dict | list):
        return "a mapping" if isinstance(given, dict) else "a list"
    return None


def _items(given: object, is_command: bool) -> list[str]:
    """The items of the list that the user meant by a single value."""
    words = [given]
    if isinstance(given, str):
        try:
            words = list(shlex.split(given) if is_command else given.split())
        except ValueError:
            pass
    return [w if isinstance(w, str) and PLAIN.fullmatch(w) else json.dumps(w) for w in words]


def _meant_item(fault: _Fault) -> str | None:
    """The hint for an item given as its name alone, or as a mapping under its name."""
    given = fault.given
    name = next(iter(given), None) if isinstance(given, dict) else given
    near = nearest(name, fault.names("type")) if isinstance(name, str) else None
    return f"write '- type: {near}', and its options beside it" if near else None

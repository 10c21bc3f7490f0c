"""Strict YAML documents with positions: what pydantic finds wrong is told by line and column."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from particle_os.errors import InvalidDocument, Problem

T = TypeVar("T")
SIZE_LIMIT = 1 << 20
NODE_LIMIT = 20_000
DEPTH_LIMIT = 50
TOO_COMPLEX = "the document is too large or too deep"

Key = tuple[str | int, ...]

# YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema) for the plain scalars; the
# words that only YAML 1.1 takes for booleans are left strings and refused where a boolean is due.
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
# A leading zero means octal to YAML 1.1 and nothing to YAML 1.2; here it makes a string.
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[1-9][0-9]*[eE][-+]?[0-9]+"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Source:
    """A parsed document: plain data, and for each path in it the node's position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: Any = None
        self.problems: list[Problem] = []
        self._values: dict[Key, yaml.Mark] = {}
        self._keys: dict[Key, yaml.Mark] = {}
        self._nodes = 0

    def problem(
        self, mark: yaml.Mark | None, code: str, message: str, hint: str | None = None
    ) -> None:
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        self.problems.append(Problem(str(self.path), line, column, code, message, hint))

    def mark(self, key: Key, *, of_key: bool = False) -> yaml.Mark | None:
        """Where a value stands, or its key; the nearest enclosing value when it is absent."""
        if of_key and key in self._keys:
            return self._keys[key]
        while key not in self._values and key:
            key = key[:-1]
        return self._values.get(key)

    def line(self, key: Key) -> int | None:
        """The line of the value at `key`, counting from 1."""
        mark = self.mark(key)
        return mark.line + 1 if mark else None

    def construct(self, node: yaml.Node, key: Key = ()) -> Any:
        self._values[key] = node.start_mark
        self._nodes += 1
        if self._nodes > NODE_LIMIT or len(key) > DEPTH_LIMIT:
            if not any(p.code == "too-complex" for p in self.problems):
                self.problem(node.start_mark, "too-complex", TOO_COMPLEX)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.construct(item, (*key, i)) for i, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                self.problem(name_node.start_mark, "bad-key", "a key must be a word")
                continue
            name = self._text(name_node)
            if name in result:
                first = self._keys[(*key, name)].line + 1
                self.problem(
                    name_node.start_mark,
                    "repeated-key",
                    f"the key '{name}' stands here a second time",
                    f"first at line {first}",
                )
                continue
            self._keys[(*key, name)] = name_node.start_mark
            result[name] = self.construct(value_node, (*key, name))
        return result

    def _scalar(self, node: yaml.Node) -> Any:
        text = self._text(node)
        if getattr(node, "style", None) is not None:
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text) and len(text) < 20:
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        if _FLOAT.fullmatch(text) and len(text) < 40:
            return float(text)
        return text

    def _text(self, node: yaml.Node) -> str:
        text = str(node.value)
        if _SURROGATE.search(text):
            self.problem(node.start_mark, "bad-text", "half of a UTF-16 pair is no character")
            return ""
        return text


class _Loader(yaml.SafeLoader):
    """Composes nodes. Anchors, aliases and tags are refused: no document multiplies itself or
    changes what its values mean."""

    def __init__(self, text: str, source: Source) -> None:
        super().__init__(text)
        self._source = source
        self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._nodes += 1
        if self._nodes > NODE_LIMIT:
            raise yaml.composer.ComposerError(None, None, TOO_COMPLEX, event.start_mark)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            complaint = "anchors and aliases are not allowed"
            self._source.problem(event.start_mark, "anchor", complaint)
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            mark: Any = event.start_mark
            return yaml.ScalarNode("tag:yaml.org,2002:null", "", mark, mark)
        if event.tag is not None:
            complaint = f"the tag '{event.tag}' is not allowed here"
            self._source.problem(event.start_mark, "bad-tag", complaint)
        return super().compose_node(parent, index)


def load(path: Path) -> Source:
    """Parses one YAML document. Raises InvalidDocument when it cannot be read or parsed."""
    source = Source(path)
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
        if len(raw) > SIZE_LIMIT:
            source.problem(None, "too-large", f"the file is larger than {SIZE_LIMIT} bytes")
        else:
            text = raw.decode("utf-8")
    except OSError as error:
        source.problem(None, "unreadable", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start)
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1)
        mark = yaml.Mark(str(path), error.start, line, column, "", 0)
        source.problem(mark, "not-utf-8", "the file is not UTF-8 text")
    if source.problems:
        raise InvalidDocument(source.problems)
    try:
        loader = _Loader(text, source)
    except yaml.YAMLError as error:
        source.problem(None, "yaml", str(error).splitlines()[0])
        raise InvalidDocument(source.problems) from None
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        what = " ".join(filter(None, (error.context, error.problem)))
        code = "too-complex" if error.problem == TOO_COMPLEX else "yaml"
        source.problem(error.problem_mark or error.context_mark, code, what)
    except RecursionError:
        source.problem(None, "too-complex", TOO_COMPLEX)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The scanner lets escapes through that name no character.
        what = str(error) if isinstance(error, yaml.YAMLError) else "an escape names no character"
        source.problem(loader.get_mark(), "yaml", what.splitlines()[0])
    else:
        if node is None:
            source.problem(None, "empty", "the file holds no document")
        else:
            source.data = source.construct(node)
    if source.data is None and not source.problems:
        source.problem(None, "empty", "the file holds no document")
    if source.data is None or any(p.code == "too-complex" for p in source.problems):
        raise InvalidDocument(source.problems)
    return source


def validate(
    source: Source, adapter: pydantic.TypeAdapter[T], names: Callable[[Key], Iterable[str]]
) -> T:
    """The document as a typed object; raises InvalidDocument with all that is wrong with it.

    `names` lists the keys (or for a stage's `type`, the words) that are right at a path, from
    which the nearest is offered.
    """
    try:
        model = adapter.validate_json(json.dumps(source.data))
    except pydantic.ValidationError as error:
        for item in error.errors(include_url=False):
            # pydantic counts only the valid items of a list; those that are not have their own.
            if item["type"] != "too_short" or not item["input"]:
                _explain(source, item, names)
        raise InvalidDocument(source.problems) from None
    if source.problems:
        raise InvalidDocument(source.problems)
    return model


def _nearest(word: str, words: Iterable[str]) -> str | None:
    candidates = list(words)
    spelled = word.replace("_", "-").lower()
    if spelled in candidates:
        return spelled
    return next(iter(difflib.get_close_matches(spelled, candidates, n=1, cutoff=0.5)), None)


def _path_of(source: Source, location: tuple[int | str, ...]) -> Key:
    """pydantic's location without the union tags that it puts in."""
    key: Key = ()
    value = source.data
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(value, dict) and (part in value or last):
            value = value.get(str(part))
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        elif not last or isinstance(value, dict | list):
            continue
        else:
            continue
        key = (*key, part)
    return key


def _shown(key: Key) -> str:
    """The last name of a path, with the number of the list's item: `formats[1]`."""
    name = next((part for part in reversed(key) if isinstance(part, str)), "")
    return f"{name}[{key[-1]}]" if key and isinstance(key[-1], int) else name


def _did_you_mean(near: str | None, allowed: list[str]) -> str | None:
    if near:
        return f"did you mean '{near}'?"
    return f"allowed: {', '.join(allowed)}" if allowed else None


def _is_scalar_for_text(item: Any) -> bool:
    """Whether YAML reads what stands there as a number or a truth value."""
    return isinstance(item.get("input"), bool | int | float)


def _explain(source: Source, item: Any, names: Callable[[Key], Iterable[str]]) -> None:
    kind, context = str(item["type"]), item.get("ctx", {})
    location = item["loc"]
    # pydantic's mark for what is wrong with the name of an entry, not with its value.
    of_key = location[-1:] == ("[key]",)
    key = _path_of(source, location[:-1] if of_key else location)
    name = _shown(key)
    mark = source.mark(key, of_key=of_key)
    shown = json.dumps(item.get("input"), ensure_ascii=False, default=str)[:80]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        allowed = list(names(key[:-1]))
        hint = _did_you_mean(_nearest(name, allowed), allowed)
        source.problem(source.mark(key, of_key=True), "unknown-key", f"unknown key '{name}'", hint)
    elif kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        source.problem(source.mark(key[:-1]), "missing-key", f"the key '{name}' is missing")
    elif kind == "union_tag_invalid":
        allowed = list(names((*key, "type")))
        word = context["tag"]
        given = item["input"].get("type") if isinstance(item["input"], dict) else word
        if not isinstance(given, str):
            shown = json.dumps(given)[:80]
            mark = source.mark((*key, "type"))
            source.problem(mark, "bad-type", f"type: expected a stage's name, found {shown}")
            return
        source.problem(
            source.mark((*key, "type")),
            "unknown-stage",
            f"there is no stage '{word}'",
            _did_you_mean(_nearest(word, allowed), allowed),
        )
    elif kind == "union_tag_not_found":
        source.problem(mark, "missing-key", "the key 'type' is missing")
    elif kind == "too_short":
        source.problem(mark, "bad-value", f"{name}: at least one item is needed")
    elif kind == "value_error":
        source.problem(mark, "bad-value", str(context["error"]))
    elif kind == "not_accepted":
        what = context["what"]
        message = f"{name or 'value'}: expected {what}, found {shown}"
        hint = "put it in quotes" if _is_scalar_for_text(item) else None
        source.problem(mark, "bad-value", message, hint)
    elif kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context["expected"]))
        near = _nearest(str(item.get("input")), allowed)
        message = f"{name}: expected {context['expected']}, found {shown}"
        source.problem(mark, "bad-value", message, f"did you mean '{near}'?" if near else None)
    else:
        hint = None
        if kind == "string_type" and _is_scalar_for_text(item):
            hint = "put it in quotes"
        if kind == "bool_type":
            hint = "write true or false"
        message = f"{name or 'document'}: {str(item['msg']).removeprefix('Input ')}, found {shown}"
        code = "bad-type" if kind.endswith(("_type", "_parsing")) else "bad-value"
        source.problem(mark, code, message, hint)

"""Reads strict YAML documents: without anchors, aliases and tags."""

from __future__ import annotations

import errno
import hashlib
import re
from pathlib import Path
from typing import Any

import yaml

from particle_os.documents.document import SIZE_LIMIT, CParser, Mark, Node, Source
from particle_os.documents.words import VARIABLE_HINT, shown_key
from particle_os.system.regular_file import read_regular

NODE_LIMIT = 20_000
DEPTH_LIMIT = 50
# In characters. PyYAML's own parser reads about 100,000 characters in a second.
EXPLAINED_LIMIT = 1 << 16
TOO_COMPLEX = "the document is too large or too deep"

# YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema) for the plain scalars; the
# words that are booleans only in YAML 1.1 stay strings and are refused in place of a boolean.
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
# A leading zero means octal in YAML 1.1 and nothing in YAML 1.2; here it makes a string.
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[1-9][0-9]*[eE][-+]?[0-9]+"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


class _TooComplex(Exception):
    def __init__(self, mark: Mark) -> None:
        self.mark = mark


class _Composer:
    """Makes nodes from a parser's events.

    Anchors, aliases and tags are errors: no document multiplies itself or changes the meaning of
    its values.
    """

    def __init__(self, source: Source, parser: Any) -> None:
        self._source = source
        self._next = parser.get_event
        self._nodes = 0

    def document(self) -> Node | None:
        """The only document; None in an empty file. Raises YAMLError or _TooComplex."""
        self._next()  # The stream begins.
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return None
        node = self._node(self._next(), 0, None)
        self._next()  # The document ends.
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            complaint = "expected a single document in the stream but found another document"
            self._source.problem(self._mark(event), "yaml", complaint)
        return node

    def _mark(self, event: Any) -> Mark:
        mark = event.start_mark
        return Mark(self._source.path, mark.line + 1, mark.column + 1)

    def _node(self, event: Any, depth: int, key: Mark | None) -> Node:
        mark = self._mark(event)
        self._nodes += 1
        if self._nodes > NODE_LIMIT or depth > DEPTH_LIMIT:
            raise _TooComplex(mark)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            hint = "variables, or a file that is included, say things once"
            self._source.problem(mark, "anchor", "anchors and aliases are not allowed", hint)
        if isinstance(event, yaml.AliasEvent):
            return Node(None, mark, key, unknown=True)
        if event.tag is not None:
            # A password that begins with "!" makes a tag.
            hint = "put a text that begins with '!' in quotes"
            self._source.problem(mark, "bad-tag", "tags are not allowed", hint)
        if isinstance(event, yaml.MappingStartEvent):
            return Node(self._mapping(depth), mark, key)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(event, depth + 1, None))
            return Node(items, mark, key)
        value = self._scalar(event, mark)
        odd = isinstance(value, int | float) and str(value).lower() != event.value.lower()
        return Node(value, mark, key, written=event.value if odd else None)

    def _mapping(self, depth: int) -> dict[str, Node]:
        result: dict[str, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            mark = self._mark(event)
            word = self._node(event, depth + 1, None)
            if not isinstance(event, yaml.ScalarEvent):
                if not isinstance(event, yaml.AliasEvent):
                    hint = VARIABLE_HINT if isinstance(event, yaml.MappingStartEvent) else None
                    self._source.problem(mark, "bad-key", "a key must be a word", hint)
                self._node(self._next(), depth + 1, None)
                continue
            name = str(event.value) if word.value != "" else ""
            value = self._node(self._next(), depth + 1, mark)
            if name not in result:
                result[name] = value
                continue
            result[name].repeated = True
            first = result[name].key
            self._source.problem(
                mark,
                "repeated-key",
                f"the key '{shown_key(name)}' stands here a second time",
                f"remove one; the first is at line {first.line}" if first else None,
            )
        return result

    def _scalar(self, event: Any, mark: Mark) -> Any:
        text = str(event.value)
        if _SURROGATE.search(text):
            self._source.problem(mark, "bad-text", "half of a UTF-16 pair is no character")
            return ""
        # libyaml calls the style of plain scalars '', PyYAML None.
        return text if event.style else plain_scalar(text)


def plain_scalar(text: str) -> Any:
    """The value of a text without quotes."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text) and len(text) < 20:
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text) and len(text) < 40:
        return float(text)
    return text


def load(path: Path) -> Source:
    """Parses one YAML document. Raises InvalidDocument when it cannot be read or parsed."""
    source = Source(path)
    text = _read(source)
    if text is not None:
        # Split at the line breaks of YAML, so that line numbers agree with the parser's.
        source.lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", text)
        source.texts[path] = source.lines
        _parse(source, text)
        if source.root.value is None and not source.problems:
            source.problem(None, "empty", "the file holds no document")
    if source.root.value is None:
        raise source.invalid()
    return source


def _read(source: Source) -> str | None:
    try:
        raw = read_regular(source.path, SIZE_LIMIT)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        if error.errno == errno.EFBIG:
            source.problem(None, "too-large", message)
        else:
            source.problem(None, "unreadable", message)
        return None
    source.files[source.path] = hashlib.sha256(raw).hexdigest()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        mark = Mark(source.path, line, column)
        source.problem(mark, "not-utf-8", "the file is not UTF-8 text")
        return None


def _parse(source: Source, text: str) -> None:
    """Sets the root of `source` unless the text is no valid document."""
    try:
        _compose(source, CParser(text))
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML's own parser gives better messages, but is slow.
        problems, source.problems = source.problems, []
        if len(text) > EXPLAINED_LIMIT or not _explain_syntax(source, text):
            source.problems = problems
            _report(source, error)


def _explain_syntax(source: Source, text: str) -> bool:
    """Reports the errors that PyYAML's own parser finds; False if it finds none."""
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        _report(source, error)
        return True
    try:
        _compose(source, loader)
    except yaml.YAMLError as error:
        _report(source, error)
    except (ValueError, OverflowError) as error:
        _report(source, error, loader.get_mark())
    if source.problems:
        return True
    source.root = Source(source.path).root
    return False


def _compose(source: Source, parser: Any) -> None:
    try:
        node = _Composer(source, parser).document()
    except _TooComplex as error:
        source.problem(error.mark, "too-complex", TOO_COMPLEX)
    else:
        source.root = node or source.root


def _report(source: Source, error: Exception, mark: Any = None) -> None:
    if not isinstance(error, yaml.MarkedYAMLError):
        # The scanner accepts escapes for numbers that are no characters.
        known = isinstance(error, yaml.YAMLError)
        what = str(error).splitlines()[0] if known else "an escape names no character"
        if isinstance(error, yaml.reader.ReaderError):
            before = "\n".join(source.lines)[: error.position]
            column = error.position - before.rfind("\n") - 1
            mark = yaml.Mark("", error.position, before.count("\n"), column, "", 0)
    else:
        what = " ".join(filter(None, (error.context, error.problem)))
        # PyYAML quotes the handle, which may be the start of a password.
        what = re.sub("(found undefined tag handle) .*", r"\1", what)
        mark = error.problem_mark or error.context_mark
        # A quote that is never closed is where it begins, not at the end of the file.
        if "end of stream" in what and error.context_mark is not None:
            mark = error.context_mark
    place = Mark(source.path, mark.line + 1, mark.column + 1) if mark else None
    # Newer versions of libyaml have their own limit, and libyaml reads ahead.
    if "maximum nesting depth" in what:
        source.problem(place, "too-complex", TOO_COMPLEX)
        return
    line = source.lines[mark.line : mark.line + 1] if mark else []
    # Within [ ] and { }, YAML reads the braces of ${...} as its own.
    in_flow = "flow" in what and line and "${" in line[0]
    hint = "put what holds ${...} in quotes within [ ] and { }" if in_flow else None
    hint = "indent with spaces: YAML allows no tabs there" if "\\t" in what else hint
    source.problem(place, "yaml", what, hint)

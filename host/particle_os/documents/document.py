"""Reads strict YAML documents. Every value has its place in the file."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from particle_os.documents.excerpt import Excerpts
from particle_os.documents.withheld import Withheld
from particle_os.documents.words import shown_key
from particle_os.errors import InvalidDocument, Problem, without_credentials
from particle_os.system.regular_file import read_regular

try:
    # libyaml is twenty times as fast as PyYAML's own parser.
    from yaml.cyaml import CParser  # type: ignore[attr-defined]
except ImportError:
    CParser = yaml.SafeLoader  # type: ignore[assignment,misc]

SIZE_LIMIT = 1 << 20
NODE_LIMIT = 20_000
DEPTH_LIMIT = 50
# In characters. PyYAML's own parser reads about 100,000 characters in a second.
EXPLAINED_LIMIT = 1 << 16
TOO_COMPLEX = "the document is too large or too deep"

Key = tuple[str | int, ...]

# YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema) for the plain scalars; the
# words that are booleans only in YAML 1.1 stay strings and are refused in place of a boolean.
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
# A leading zero means octal in YAML 1.1 and nothing in YAML 1.2; here it makes a string.
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[1-9][0-9]*[eE][-+]?[0-9]+"
)
# Templates of other programs have {{ x }}, which is a mapping with a mapping as its key in YAML.
_VARIABLE_HINT = "write ${x} for a variable, not {{ x }}"
_SURROGATE = re.compile("[\ud800-\udfff]")


class Mark(NamedTuple):
    """A place in a file; lines and columns count from 1."""

    path: Path
    line: int
    column: int


@dataclass(slots=True)
class Node:
    """A value with its place and the place of its key; mappings and lists contain nodes.

    The error of an `unknown` value has been reported already. `written` is a number as the document
    spells it, such as 0o755, if that is not the usual form. `made_of` names the variables in it. No
    message shows a `confidential` value; a valid `public` one is no secret. The source line shows
    an `open` value. The key of a `repeated` value occurs twice.
    """

    value: Any
    mark: Mark
    key: Mark | None = None
    unknown: bool = False
    written: str | None = None
    made_of: tuple[str, ...] = ()
    confidential: bool = False
    public: bool = False
    open: bool = False
    repeated: bool = False

    def plain(self) -> Any:
        """The value as plain data."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, part: str | int) -> Node | None:
        """The value of a key, or an item of a list; None if the key or item is missing."""
        if isinstance(self.value, dict):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and part < len(self.value):
            found: Node = self.value[part]
            return found
        return None

    def walk(self) -> Iterator[Node]:
        """This node, then all nodes in it."""
        yield self
        if isinstance(self.value, dict | list):
            inner = self.value.values() if isinstance(self.value, dict) else self.value
            for node in inner:
                yield from node.walk()


class Source:
    """A parsed document with its `problems`, which are errors, and its `notes`, which are not.

    `lines` are those of the file, `texts` those of all YAML files, `files` their SHA-256 digests. A
    part of an `incomplete` one is missing. `when` leaves out `left_out`, files replace `included`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = Node(None, Mark(path, 1, 1))
        self.lines: list[str] = []
        self.texts: dict[Path, list[str]] = {}
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.files: dict[Path, str] = {}
        self.incomplete = False
        self.left_out: list[Node] = []
        self.included: list[Node] = []
        self._withheld = Withheld()

    @property
    def data(self) -> Any:
        """The document as plain data."""
        return self.root.plain()

    def problem(self, mark: Mark | None, code: str, message: str, hint: str | None = None) -> None:
        path, line, column = mark or Mark(self.path, 1, 1)
        found = Problem(str(path), line, column, code, message, hint)
        self.problems.append(self._presentable(found))

    def note(self, mark: Mark, code: str, message: str) -> None:
        found = Problem(str(mark.path), mark.line, mark.column, code, message)
        self.notes.append(self._presentable(found))

    def withhold(self, texts: Iterable[str]) -> None:
        """Removes `texts` from all messages, earlier messages included."""
        self._withheld = self._withheld.and_these(texts)
        self.problems = [self._presentable(problem) for problem in self.problems]
        self.notes = [self._presentable(note) for note in self.notes]

    def invalid(self) -> InvalidDocument:
        """The error with all different problems, each with its line in the file, and the notes."""
        values: dict[tuple[Path, int, int], Node] = {node.mark: node for node in self.root.walk()}
        lines = Excerpts(CParser, self.texts, values, self._withheld.removed_from)
        return InvalidDocument([*lines.added_to([*dict.fromkeys(self.problems)])], self.notes)

    def _presentable(self, problem: Problem) -> Problem:
        def presentable(text: str) -> str:
            return self._withheld.removed_from(without_credentials(text))

        hint = problem.hint and presentable(problem.hint)
        return replace(problem, message=presentable(problem.message), hint=hint)

    def nodes(self, key: Key) -> Iterator[Node]:
        """The values on the path to `key`, from the whole document to the value at `key`."""
        node: Node | None = self.root
        for part in key:
            if node is None:
                return
            yield node
            node = node.child(part)
        if node is not None:
            yield node

    def node(self, key: Key) -> Node | None:
        """The value at a path; None if it is missing."""
        node: Node | None = self.root
        for part in key:
            node = node and node.child(part)
        return node

    def mark(self, key: Key, *, of_key: bool = False) -> Mark:
        """The place of a value or of its key; of the nearest enclosing value if it is missing."""
        node = self.root
        for part in key:
            found = node.child(part)
            if found is None:
                return node.mark
            node = found
        return node.key if of_key and node.key is not None else node.mark

    def line(self, key: Key) -> int:
        """The line of the value at `key`, counting from 1."""
        return self.mark(key).line


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
                    hint = _VARIABLE_HINT if isinstance(event, yaml.MappingStartEvent) else None
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

"""A YAML document whose values have their places in the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from copy import copy as shallow
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from particle_os.documents.excerpt import Excerpts
from particle_os.documents.withheld import Withheld
from particle_os.errors import InvalidDocument, Problem, without_credentials
from particle_os.system.regular_file import read_regular

# Bytes of a file with a document.
SIZE_LIMIT = 1 << 20

try:
    # libyaml is twenty times as fast as PyYAML's own parser.
    from yaml.cyaml import CParser as CParser  # type: ignore[attr-defined]
except ImportError:
    CParser = yaml.SafeLoader  # type: ignore[assignment,misc]

Key = tuple[str | int, ...]


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

    def fresh(self) -> Node:
        """A copy of the value and of all nodes in it."""
        value = self.value
        if isinstance(value, dict):
            value = {name: node.fresh() for name, node in value.items()}
        elif isinstance(value, list):
            value = [node.fresh() for node in value]
        # `dataclasses.replace` would take longer than the parser.
        return Node(
            value, self.mark, self.key, self.unknown, self.written, self.made_of,
            self.confidential, self.public, self.open, self.repeated,
        )  # fmt: skip

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
    part of an `incomplete` one is missing. `when` leaves out `left_out`, files replace `included`,
    and `apart` is the content of the files that replace what is left out.
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
        self.apart: list[Node] = []
        self._withheld = Withheld()

    def fresh(self) -> Source:
        """A copy for those who change the document. It spares them from reading the file again."""
        other = shallow(self)
        other.root = self.root.fresh()
        other.problems, other.notes = [*self.problems], [*self.notes]
        other.left_out, other.included = [*self.left_out], [*self.included]
        other.apart = [*self.apart]
        other.texts, other.files = {**self.texts}, {**self.files}
        return other

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
        nodes = (n for top in (*self.left_out, *self.apart, self.root) for n in top.walk())
        values: dict[tuple[Path, int, int], Node] = {node.mark: node for node in nodes}
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


def source_sha256(path: Path) -> str:
    """The SHA-256 of a file of at most SIZE_LIMIT bytes. Raises OSError."""
    return hashlib.sha256(read_regular(path, SIZE_LIMIT)).hexdigest()

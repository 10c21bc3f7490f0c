"""Makes the line of a document that a message shows with a caret, without secrets.

A line has the keys of the document, its punctuation, and the values that are `open`: their types
declare them, and as not confidential. Anything else might be a password under a misspelt key: it is
shown if it consists of ordinary words (see `ordinary`), and becomes HIDDEN otherwise. Beside a
confidential value, which is HIDDEN, only open values are shown. A line of a confidential value that
has several lines is not shown.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import yaml

from particle_os.documents.ordinary import holds_secrets, is_ordinary, names_secret
from particle_os.documents.words import shown_key, unlike_a_path
from particle_os.errors import Excerpt, Problem, printable, without_credentials

HIDDEN = "…"
# In characters: the length of a line, of a value in it, and of what precedes the caret.
LINE_SHOWN, VALUE_SHOWN, BEFORE_SHOWN = 100, 60, 60
# In characters: no longer line of a file is shown.
LINE_READ = 1000
# Behind a syntax error: a word, or what divides words. Marks begin anchors, aliases and tags.
_WORD = re.compile(r"[\s\[\]{},:'\"|>]+|[^\s\[\]{},:'\"|>]+")
_MARKS = ("!", "&", "*")
# Everything else outside of keys and values may be a comment, an anchor or a tag.
_NO_PUNCTUATION = re.compile(r"[^\s\[\]{},:?\-'\"|>+]+")


# The file, the line and the column; the latter count from 1.
Spot = tuple[Path, int, int]


class Presentable(Protocol):
    """The marks of a value that decide whether its line shows it: see `Node`."""

    confidential: bool
    open: bool
    unknown: bool


@dataclass(frozen=True, slots=True)
class _Token:
    """A key or a value; lines and columns count from 0, and the end is exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int
    is_key: bool
    text: str
    is_marked: bool
    # Whether a key above it, or the key itself, has the name of one that holds secrets.
    below_secret: bool

    @property
    def of_several_lines(self) -> bool:
        return self.line != self.end_line


@dataclass(frozen=True)
class _Tokens:
    """The tokens of a document by their lines.

    Behind the place `end`, a syntax error leaves the text without tokens; `below_secret` as there.
    """

    by_line: Mapping[int, list[_Token]]
    end: tuple[int, int] | None = None
    below_secret: bool = False


class Excerpts:
    """The lines that the messages about a document and its included files show.

    `parser` is the class of the YAML parser, and `texts` are the lines of each file. `presentable`
    returns a text as messages show it.
    """

    def __init__(
        self,
        parser: Any,
        texts: Mapping[Path, Sequence[str]],
        values: Mapping[Spot, Presentable],
        presentable: Callable[[str], str],
    ) -> None:
        self._parser = parser
        self._texts = texts
        self._values = values
        self._presentable = presentable
        self._lines: dict[Path, _Tokens] = {}

    def added_to(self, problems: Sequence[Problem]) -> Iterator[Problem]:
        """The problems with their lines; a line that may not be shown is left out."""
        for problem in problems:
            mark = (Path(problem.path), problem.line, problem.column)
            yield problem if problem.excerpt else replace(problem, excerpt=self._at(mark))

    def _at(self, place: Spot) -> Excerpt | None:
        path, number, column = place[0], place[1] - 1, place[2] - 1
        lines = self._texts.get(path, ())
        if number >= len(lines) or len(lines[number]) > LINE_READ:
            return None
        if path not in self._lines:
            self._lines[path] = _read(self._texts[path], self._parser)
        found = self._lines[path]
        tokens = [(token, self._value(path, token)) for token in found.by_line.get(number, [])]
        secret = [token for token, value in tokens if value is not None and value.confidential]
        if any(token.of_several_lines for token in secret):
            return None
        line = self._texts[path][number]
        shown, caret, at = "", None, 0
        broken = found.end is not None and number >= found.end[0]
        words = broken and not self._is_secret(found, lines, number)
        for begin, end, text in self._parts(number, line, tokens, bool(secret), words):
            if caret is None and column < end:
                inside = column - begin if text == line[begin:end] else 0
                caret = len(shown) + len(printable(text[:inside]))
            shown += printable(text.replace("\t", " "))
            at = end
        caret = len(shown) + max(0, column - at) if caret is None else caret
        return _bounded(shown, caret) if shown.strip() else None

    def _value(self, path: Path, token: _Token) -> Presentable | None:
        """The value that a token spells; None for a key, and for a value that is left out."""
        return None if token.is_key else self._values.get((path, token.line + 1, token.column + 1))

    def _parts(
        self,
        number: int,
        line: str,
        tokens: Sequence[tuple[_Token, Presentable | None]],
        beside_secret: bool,
        words: bool,
    ) -> Iterator[tuple[int, int, str]]:
        """The line in parts, each with its beginning and end in the line and its shown text.

        With `words`, ordinary words outside of the tokens are shown.
        """
        at = 0
        for token, value in tokens:
            begin = token.column if token.line == number else 0
            end = token.end_column if token.end_line == number else len(line)
            yield from _between(line, at, begin)
            yield begin, end, self._shown(token, value, line[begin:end], beside_secret)
            at = end
        yield from self._rest(line, at) if words else _between(line, at, len(line))

    def _shown(
        self, token: _Token, value: Presentable | None, text: str, beside_secret: bool
    ) -> str:
        if token.of_several_lines or token.is_marked or unlike_a_path(token.text):
            return HIDDEN
        if token.is_key:
            plain = not beside_secret and is_ordinary(token.text) and self._is_harmless(text)
            return text if plain or shown_key(token.text) == token.text else shown_key(token.text)
        secret = value is not None and value.confidential
        known = value is not None and value.open and not (value.unknown or secret)
        unknown = not (secret or beside_secret or token.below_secret) and is_ordinary(token.text)
        return text if (known or unknown) and self._is_harmless(text) else HIDDEN

    def _is_harmless(self, text: str) -> bool:
        same = without_credentials(text) == text and self._presentable(text) == text
        return same and len(text) <= VALUE_SHOWN

    def _is_secret(self, found: _Tokens, lines: Sequence[str], number: int) -> bool:
        """Whether what a syntax error leaves without tokens may belong to a secret."""
        assert found.end is not None
        first, column = found.end
        # The error may have ended a text of several lines.
        text = "\n".join(lines[first : number + 1])[column:]
        return found.below_secret or len(text) > LINE_READ or names_secret(text)

    def _rest(self, line: str, begin: int) -> Iterator[tuple[int, int, str]]:
        """The rest of a line behind a syntax error, with its ordinary words."""
        text = line[begin:]
        if comment := re.search(r"(^|\s)#", text):
            text = text[: comment.start()]
        for found in _WORD.finditer(text):
            first, last = begin + found.start(), begin + found.end()
            plain = is_ordinary(found[0]) and not found[0].startswith(_MARKS)
            yield first, last, found[0] if plain and self._is_harmless(found[0]) else HIDDEN


def _between(line: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """The part of a line between two tokens, without what is no punctuation."""
    if begin < end:
        text, at = line[begin:end], begin
        if comment := re.search(r"(^|\s)#", text):
            text = text[: comment.start()]
        # Parts of their own keep the places of what follows them.
        for hidden in _NO_PUNCTUATION.finditer(text):
            first, last = begin + hidden.start(), begin + hidden.end()
            yield at, first, line[at:first]
            yield first, last, HIDDEN
            at = last
        yield at, begin + len(text), line[at : begin + len(text)]


def _bounded(text: str, caret: int) -> Excerpt:
    """An excerpt of a line around the caret."""
    begin = max(0, caret - BEFORE_SHOWN) if len(text) > LINE_SHOWN else 0
    cut = text[begin : begin + LINE_SHOWN].rstrip()
    if begin:
        cut = HIDDEN + cut[1:]
    if len(text.rstrip()) > begin + LINE_SHOWN:
        cut += HIDDEN
    return Excerpt(cut, caret - begin)


def _read(lines: Sequence[str], parser: Any) -> _Tokens:
    """The tokens of a document; of a wrong document, those before the error."""
    found: dict[int, list[_Token]] = defaultdict(list)
    open_: list[_Collection] = []
    end = (0, 0)
    try:
        for token in _tokens("\n".join(lines), parser, open_):
            last = token.end_line + (token.end_column > 0 or token.end_line == token.line)
            end = token.end_line, token.end_column
            for line in range(token.line, last):
                found[line].append(token)
    except (yaml.YAMLError, ValueError, OverflowError):
        return _Tokens(found, end, _below_secret(open_))
    return _Tokens(found)


@dataclass
class _Collection:
    """An open collection: whether its next child is a key (None in a list), and the last key."""

    is_key: bool | None
    key: str = ""


def _tokens(text: str, parser: Any, open_: list[_Collection]) -> Iterator[_Token]:
    """The tokens of a document; `open_` are the collections around the last one."""
    for event in yaml.parse(text, Loader=parser):
        if isinstance(event, yaml.CollectionEndEvent):
            open_.pop()
        is_key = bool(open_ and open_[-1].is_key)
        if isinstance(event, yaml.ScalarEvent):
            if is_key:
                open_[-1].key = str(event.value)
            yield _token(event, is_key, _below_secret(open_))
        if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent) and open_:
            _turn(open_[-1], event)
        if isinstance(event, yaml.CollectionStartEvent):
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            open_.append(_Collection(True if is_mapping else None))


def _below_secret(open_: Sequence[_Collection]) -> bool:
    return any(holds_secrets(each.key) for each in open_ if each.key)


def _turn(around: _Collection, event: Any) -> None:
    """After a whole key comes a value, and after a whole value a key."""
    if not isinstance(event, yaml.CollectionStartEvent) and around.is_key is not None:
        around.is_key = not around.is_key


def _token(event: Any, is_key: bool, below_secret: bool) -> _Token:
    begin, end = event.start_mark, event.end_mark
    marked = event.tag is not None or event.anchor is not None
    return _Token(
        begin.line, begin.column, end.line, end.column, is_key, str(event.value), marked,
        below_secret,
    )  # fmt: skip

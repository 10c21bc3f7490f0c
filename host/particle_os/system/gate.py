"""The gate that all text of guests passes before it leaves: it hides the secrets of a job.

A command makes one gate and hands it to every sink: consoles, progress, log, result, report and
errors. The gate finds a secret in the forms of `secret_forms`, also when line breaks, control
sequences or the kernel's time stamps divide it, and shows `***` in its place. Each sink then
escapes the text for its format, for example with `errors.printable`.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Literal, TypeVar

import pydantic

from particle_os.errors import InvalidDocument, ParticleError
from particle_os.system import secret_forms
from particle_os.system.secret_forms import LEAST

T = TypeVar("T")
HIDDEN = b"***"
# The bytes that a program, a terminal or the kernel's log puts between the pieces of a text.
_BREAKS = rb"[\r\n]+(?:\[ {0,12}\d{1,9}\.\d{6}\] )?|\x1b\[[0-9;?]{0,40}[ -/]{0,8}[@-~]"
_LINE_BREAKS = re.compile(_BREAKS)
_BLANKS = re.compile(rb"[ \t]+|" + _BREAKS)
# The beginning of such bytes, at the end of a piece of a stream.
_UNFINISHED = re.compile(rb"(?:[\r\n](?:\[[ \d.\]]{0,24})?|\x1b(?:\[[0-9;?]{0,40}[ -/]{0,8})?)\Z")
_UNFINISHED_MOST = 64
# What a message may put behind a text that it cuts: a quote, a bracket, an ellipsis.
_CLOSING = re.compile(rb"(?:['\")\]]|\xe2\x80\xa6){0,4}\Z")
_VISIBLE = re.compile(rb"[^\r\n]+")
# A beginning or an end of a secret with this many bytes is hidden where the text ends.
EDGE = 8
# Bytes. A stream holds back at most this much more than the longest form of a secret.
SLACK = 4096
# Fields that hold no text of a guest, and that programs compare.
_DIGESTS = re.compile(r"(.*_)?(sha256|digest|key)")
Span = tuple[int, int]


class Gate:
    """Hides the secrets that it has learned. A gate without secrets changes nothing."""

    def __init__(self, values: Iterable[bytes] = ()) -> None:
        self._values: set[bytes] = set()
        self.levels: tuple[Level, ...] = ()
        self.longest = 0
        self.learn(values)

    def learn(self, values: Iterable[bytes]) -> None:
        """Hides also these secrets from now on."""
        if not (new := set(values) - self._values):
            return
        self._values |= new
        plain = secret_forms.plain_forms(self._values) | secret_forms.further_lines(self._values)
        encoded = secret_forms.encoded_forms(self._values)
        # The agent drops blanks at the end of lines, so a text may lack some of a secret's blanks.
        wanted = ((None, plain), (_LINE_BREAKS, plain), (_BLANKS, plain | encoded))
        levels = [Level.of(ignored, forms) for ignored, forms in wanted]
        self.levels = tuple(level for level in levels if level.forms)
        self.longest = max((len(f) for level in self.levels for f in level.forms), default=0)

    def text(self, text: str) -> str:
        """Hides secrets in a text, which may begin or end within a secret."""
        if not self.levels:
            return text
        data = text.encode("utf-8", "surrogatepass")
        spans = [*self.found(data), *self.cut_at_start(data)]
        for text_end in (data, _CLOSING.sub(b"", data)):
            spans += self.cut_at_end(text_end)
        return _decoded(_masked(data, _merged(spans)))

    def lines(self, lines: Sequence[str]) -> list[str]:
        """Hides secrets in lines that follow each other, and returns as many lines."""
        if not self.levels:
            return list(lines)
        shown = iter(self.text("\n".join(lines)).split("\n"))
        return ["\n".join(next(shown) for _ in range(line.count("\n") + 1)) for line in lines]

    def hide(self, value: T) -> T:
        """A copy of a text, collection, dataclass or model with the secrets hidden."""
        return typing.cast(T, self._hide(value)) if self.levels else value

    def _hide(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            is_text = all(isinstance(item, str) for item in value)
            items = self.lines(value) if is_text else [self._hide(item) for item in value]
            return type(value)(items)
        if isinstance(value, dict):
            return {self._hide(key): self._hide(item) for key, item in value.items()}
        if isinstance(value, pydantic.BaseModel):
            return value.model_copy(update=self._fields(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.replace(value, **self._fields(value))
        return value

    def _fields(self, value: Any) -> dict[str, Any]:
        return {name: self._hide(getattr(value, name)) for name in _text_fields(value.__class__)}

    def clean(self, error: ParticleError) -> None:
        """Hides secrets in an error, which is changed in place."""
        if not self.levels:
            return
        error.brief = self.text(error.brief)
        error.hint, error.where = self.hide(error.hint), self.hide(error.where)
        error.args = (error.brief,)
        error.tail = tuple(self.lines(error.tail))
        if isinstance(error, InvalidDocument):
            error.problems, error.notes = self.hide(error.problems), self.hide(error.notes)

    def stream(self) -> Stream:
        """A filter for bytes that arrive in pieces."""
        return Stream(self)

    def line_stream(self) -> LineStream:
        """A filter for lines that arrive one by one."""
        return LineStream(self)

    def found(self, data: bytes) -> Iterator[Span]:
        """The places of all secrets in `data`."""
        for level in self.levels:
            yield from level.found(data)

    def cut_at_end(self, data: bytes) -> Iterator[Span]:
        """The places of secrets that the end of `data` cuts, if enough of them is there."""
        for level in self.levels:
            if (span := level.unfinished(data, least=EDGE)) is not None:
                yield span[0], len(data)

    def cut_at_start(self, data: bytes) -> Iterator[Span]:
        """The places of secrets that the start of `data` cuts, if enough of them is there."""
        for level in self.levels:
            if end := level.cut_at_start(data):
                yield 0, end

    def pending(self, data: bytes) -> int:
        """The place in `data` from which the next piece of a stream may complete a secret."""
        spans = (level.unfinished(data, least=1) for level in self.levels)
        return min((span[0] for span in spans if span is not None), default=len(data))


@dataclasses.dataclass(frozen=True)
class Level:
    """Forms of secrets, and the bytes that are ignored between the bytes of a form."""

    ignored: re.Pattern[bytes] | None
    forms: tuple[bytes, ...]

    @staticmethod
    def of(ignored: re.Pattern[bytes] | None, forms: Iterable[bytes]) -> Level:
        kept = {ignored.sub(b"", form) if ignored else form for form in forms}
        return Level(ignored, tuple(sorted(form for form in kept if len(form) >= LEAST)))

    def found(self, data: bytes) -> Iterator[Span]:
        text, place = self._squeezed(data)
        for form in self.forms:
            at = text.find(form)
            while at >= 0:
                yield place(at), place(at + len(form) - 1) + 1
                at = text.find(form, at + 1)

    def unfinished(self, data: bytes, *, least: int) -> Span | None:
        """The longest end of `data` that begins a form, if it has `least` bytes of the form.

        A form of fewer than twice as many bytes counts with half of it.
        """
        text, place = self._squeezed(data[: _finished(data)] if self.ignored else data)
        longest = 0
        for form in self.forms:
            size = _overlap(text, form)
            if size >= _enough(form, least):
                longest = max(longest, size)
        return (place(len(text) - longest), len(data)) if longest else None

    def cut_at_start(self, data: bytes) -> int:
        """The end of the longest start of `data` that ends a form, or lies in it; 0 if none."""
        text, place = self._squeezed(data)
        longest = 0
        for form in self.forms:
            least = _enough(form, EDGE)
            if least <= len(text) < len(form) and text in form:
                return len(data)
            size = _tail_overlap(text, form, least)
            longest = max(longest, size)
        return place(longest - 1) + 1 if longest else 0

    def _squeezed(self, data: bytes) -> tuple[bytes, Callable[[int], int]]:
        """`data` without the ignored bytes, and a function from its places to those of `data`."""
        if self.ignored is None:
            return data, lambda at: at
        kept, starts, origins, done, size = [], [], [], 0, 0
        for gap in [*self.ignored.finditer(data), None]:
            piece = data[done : gap.start() if gap else len(data)]
            kept.append(piece)
            starts.append(size)
            origins.append(done)
            size += len(piece)
            done = gap.end() if gap else len(data)

        def place(at: int) -> int:
            index = bisect.bisect_right(starts, at) - 1
            return origins[index] + at - starts[index]

        return b"".join(kept), place


class Stream:
    """Hides secrets in bytes that arrive in pieces.

    The stream holds back the bytes that the next piece may complete to a secret.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._held = b""
        # The number of held bytes that belong to a secret whose beginning has already left.
        self._covered = 0
        self._open = False

    def feed(self, data: bytes) -> bytes:
        """Takes a piece, and returns the bytes that may leave now."""
        if not self._gate.levels:
            return data
        held = self._held + data
        spans = [(0, self._covered), *self._gate.found(held)]
        keep = self._gate.pending(held)
        if len(held) - keep > self._gate.longest + SLACK:
            keep = len(held)
            spans += self._gate.cut_at_end(held)
        return self._let_out(held, spans, keep)

    def flush(self) -> bytes:
        """Returns the rest at the end of the stream; hides a secret that the end cuts."""
        held = self._held
        spans = [(0, self._covered), *self._gate.found(held), *self._gate.cut_at_end(held)]
        return self._let_out(held, spans, len(held))

    def peek(self) -> bytes:
        """Returns what `flush` would return."""
        copy = Stream(self._gate)
        copy._held, copy._covered, copy._open = self._held, self._covered, self._open
        return copy.flush()

    def _let_out(self, held: bytes, found: Iterable[Span], keep: int) -> bytes:
        spans = _merged(found)
        out = _masked(held[:keep], [(a, min(b, keep)) for a, b in spans if a < keep])
        if self._open and spans and spans[0][0] == 0 and _is_visible(held[:1]):
            # The mark of this secret has left before.
            out = out.removeprefix(HIDDEN)
        cut = next(((a, b) for a, b in spans if a <= keep < b), None)
        self._covered = cut[1] - keep if cut else 0
        if keep:
            self._open = cut is not None and cut[0] < keep and _is_visible(held[keep - 1 : keep])
        self._held = held[keep:]
        return out


class LineStream:
    """Hides secrets in lines that arrive one by one, also those that several lines divide."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._stream = gate.stream()
        self._rest = b""

    def feed(self, line: str) -> list[str]:
        """Takes a line, and returns the lines that may leave now."""
        if not self._gate.levels:
            return [line]
        return self._whole(self._stream.feed(line.encode("utf-8", "surrogatepass") + b"\n"))

    def flush(self) -> list[str]:
        """Returns the lines that were held back."""
        return self._whole(self._stream.flush())

    def _whole(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [_decoded(line) for line in lines]


def _is_visible(byte: bytes) -> bool:
    return bool(byte) and byte not in b"\r\n"


def _enough(form: bytes, least: int) -> int:
    return min(least, max(LEAST, len(form) // 2))


def _overlap(text: bytes, form: bytes) -> int:
    """The length of the longest end of `text` that begins `form` and is not all of it."""
    at = max(0, len(text) - len(form) + 1)
    while (at := text.find(form[:1], at)) >= 0:
        if form.startswith(text[at:]):
            return len(text) - at
        at += 1
    return 0


def _tail_overlap(text: bytes, form: bytes, least: int) -> int:
    """The length of the longest start of `text` that ends `form`; 0 if it is below `least`."""
    at = max(1, len(form) - len(text))
    while len(form) - at >= least and (at := form.find(text[:least], at)) >= 0:
        if text.startswith(form[at:]):
            return len(form) - at
        at += 1
    return 0


def _merged(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, with those joined that overlap."""
    found: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _masked(data: bytes, spans: Iterable[Span]) -> bytes:
    """`data` with HIDDEN for each line of each span; line breaks stay."""
    kept, done = [], 0
    for start, end in spans:
        kept += [data[done:start], _VISIBLE.sub(HIDDEN, data[start:end])]
        done = end
    return b"".join([*kept, data[done:]])


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


@cache
def _text_fields(kind: Any) -> tuple[str, ...]:
    """The fields of a dataclass or model that may hold text of a guest."""
    if issubclass(kind, pydantic.BaseModel):
        hints: dict[str, Any] = {n: f.annotation for n, f in kind.model_fields.items()}
    else:
        named = typing.get_type_hints(kind)
        hints = {f.name: named[f.name] for f in dataclasses.fields(kind) if f.init}
    return tuple(n for n, h in hints.items() if not _is_word(h) and not _DIGESTS.fullmatch(n))


def _is_word(hint: Any) -> bool:
    """Whether a type has fixed words for values."""
    inner = [part for part in typing.get_args(hint) if part is not type(None)]
    return typing.get_origin(hint) is Literal or (bool(inner) and all(map(_is_word, inner)))


def _finished(data: bytes) -> int:
    """The number of bytes before an unfinished break at the end of `data`."""
    before = max(0, len(data) - _UNFINISHED_MOST)
    found = _UNFINISHED.search(data, before)
    return len(data[: found.start() + 1].rstrip(b"\r\n\x1b")) if found else len(data)

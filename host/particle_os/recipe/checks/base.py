"""The base class of checks of a booted image, and the types of their options.

A check names programs that run in the image, as argument lists, and judges their output. The image
is untrusted and may print anything: the probe limits the size of replies, and regular expressions
run in Rust's regex crate, which takes linear time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pydantic
import pydantic_core
from particle_agent.contract.options import Between, Options, Text
from pydantic_core import PydanticCustomError, SchemaValidator, core_schema

CONTENT_BYTES = 65536
QUESTION_SECONDS = 30


@functools.cache
def expression(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern))


def _compiles(pattern: str) -> str:
    try:
        expression(pattern)
    except pydantic_core.SchemaError:
        raise PydanticCustomError(
            "not_accepted",
            "expected {what}",
            {"what": "a regular expression without look-around and back-references"},
        ) from None
    return pattern


Expression = Annotated[str, pydantic.AfterValidator(_compiles)]
MemorySize = Annotated[
    str, Text("a size in M or G (powers of 1024) such as '512M' or '2G'", r"[1-9][0-9]{0,6}[MG]")
]
PortNumber = Annotated[int, Between(1, 65535)]
WebPath = Annotated[str, Text("a path such as '/' or '/health?full=1'", r"/[!-~]*", 2048)]
Word = Annotated[
    str, Text("a word without spaces and control characters", r"[^\x00-\x20\x7f]+", 2048)
]
# Images have more names than stages can create: Debian-exim, first.last, libc6:amd64.list.
# Numbers are excluded because getent(1) and id(1) take them for ids.
AccountName = Annotated[
    str,
    Text(
        "the name of a user or group: no number, and without spaces, ':', '/', control characters, "
        "or '+' or '-' at its start",
        r"([^\x00-\x20\x7f:/0-9+-]|[0-9]+[^\x00-\x20\x7f:/0-9])[^\x00-\x20\x7f:/]*",
    ),
]
ImagePath = Annotated[
    str,
    Text(
        "an absolute path without parts '.' and '..', control characters, or '/' at its end",
        r"(/([^./\x00-\x1f\x7f]|\.[^./\x00-\x1f\x7f]|\.\.[^/\x00-\x1f\x7f])[^/\x00-\x1f\x7f]*)+|/",
        4096,
    ),
]


@dataclass(frozen=True)
class Reply:
    """The exit status and the output of a program in the image; untrusted.

    `status` is None when the program reached its time limit and was killed.
    """

    status: int | None
    output: str

    @property
    def text(self) -> str:
        return self.output.strip()


NO_REPLY = Reply(-1, "")


@dataclass(frozen=True)
class Judgement:
    """Whether a check holds, and the observed value as evidence."""

    holds: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class BaseCheck(Options):
    """One kind of check; its key in a recipe is `kind`.

    Each program may run for `seconds`.
    """

    kind: ClassVar[str]
    seconds: ClassVar[int] = QUESTION_SECONDS

    @property
    def name(self) -> str:
        """The name of the check in a result: its kind and its subject."""
        return f"{self.kind} {getattr(self, self.kind.replace('-', '_'))}"

    def asks(self) -> tuple[tuple[str, ...], ...]:
        """The programs to run in the image, with their arguments."""
        return ()

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        """Judges the replies to the programs of `asks`, in the same order."""
        return Judgement(True, "")


def judge_content(text: str, contains: str | None, matches: str | None) -> Judgement:
    """Judges whether a text has the required content; None means no requirement."""
    shown = text.strip()[:200] or "nothing"
    if contains is not None and contains not in text:
        return Judgement(False, f"'{contains}' is not in: {shown}")
    if matches is not None and not _matches(matches, text):
        return Judgement(False, f"'{matches}' does not match: {shown}")
    return Judgement(True, shown)


def _matches(pattern: str, text: str) -> bool:
    """Whether a pattern matches anywhere in a text without its final newline."""
    try:
        expression(pattern).validate_python(text.removesuffix("\n"))
    except pydantic_core.ValidationError:
        return False
    return True

"""The errors that a user sees, each with the program's exit code for it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from rich.cells import cell_len

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_STAGE = 3
EXIT_NOT_BOOTED = 4
EXIT_INFRASTRUCTURE = 5
EXIT_SIGNAL = 128

ErrorStatus = Literal["failed", "defective", "infrastructure", "cancelled"]

_UNPRINTABLE = re.compile(
    r"[^\t\x20-\x7e\xa0-\u061b\u061d-\u200a\u2010-\u2027\u202f-\u2065\u2070-\ud7ff\ue000-\uffff]"
)
_WORD = re.compile(r"\S+")
# What is before the userinfo of a URL (RFC 3986, 3.2.1), also of a wrong one and of
# NAME:PASSWORD@HOST. The possessive repetition keeps the time linear.
_SCHEME = re.compile(r"(?<![\w+.-])[\w+.-]*+:(?://)?")
_DIGEST = "sha256:"
# References to files, in which an image follows an '@'.
_OF_FILES = ("docker-archive:", "oci:", "oci-archive:", "tar:")


# The runners of GitHub and Azure take this as a command wherever it stands in a line.
_COMMAND = re.compile(r"##(?=[a-z]*\[)")
# GitHub's runner takes a line as a command that begins so, after blanks.
_COMMAND_LINE = re.compile(r"\A([^\x21-\x7e]*):(?=:)")


def without_credentials(text: str) -> str:
    """Returns `text` without the user names and passwords in its URLs."""
    return _WORD.sub(_without_userinfo, text) if "@" in text else text


def _without_userinfo(match: re.Match[str]) -> str:
    word = match[0]
    if word.startswith(_OF_FILES) and "://" not in word:
        return word
    at = word.rfind("@")
    # The '@' before a container image's digest is no userinfo.
    while at >= 0 and word.startswith(_DIGEST, at + 1):
        at = word.rfind("@", 0, at)
    for scheme in _SCHEME.finditer(word, 0, max(at, 0)):
        if re.search("[A-Za-z0-9]", scheme[0]):
            return f"{word[: scheme.end()]}***{word[at:]}"
    return word


def printable(text: str, limit: int = 2000) -> str:
    """Returns `text` safe for a terminal and for the log of a CI system, cut to `limit` characters.

    Control characters and bidirectional characters are escaped, and the `##[` of a command.
    """
    cut = _COMMAND.sub(r"#\\x23", text[:limit])
    return _UNPRINTABLE.sub(lambda m: m.group().encode("unicode_escape").decode("ascii"), cut)


def whole_line(line: str) -> str:
    """Returns a line to print, with what a CI system would take as a command escaped."""
    return _COMMAND_LINE.sub(r"\1\\x3a", _COMMAND.sub(r"#\\x23", line))


class ParticleError(Exception):
    """An error for the user.

    `brief` says what happened, `hint` what to do, and `where` the place. `tail` holds the last
    lines of output before the error. `log` is the file with the complete output. `command` is one
    that shows more of the cause.
    """

    exit_code: ClassVar[int] = EXIT_INTERNAL
    # The status of a build that the error ends.
    build_status: ErrorStatus = "failed"

    def __init__(
        self,
        brief: str,
        *,
        hint: str | None = None,
        where: str | None = None,
        tail: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self.brief = without_credentials(brief)
        super().__init__(self.brief)
        self.hint = hint and without_credentials(hint)
        self.where = where
        self.tail = tuple(map(without_credentials, tail))
        self.log = log
        self.command: str | None = None


class UsageError(ParticleError):
    """The command line asks for something impossible."""

    exit_code = EXIT_USAGE


class StageFailed(ParticleError):
    """A stage of the recipe failed."""

    exit_code = EXIT_STAGE


class NotBooted(ParticleError):
    """The image did not pass its boot test."""

    exit_code = EXIT_NOT_BOOTED


class Defective(ParticleError):
    """The inspection of an image found a defect."""

    exit_code = EXIT_NOT_BOOTED
    build_status = "defective"


class InfrastructureError(ParticleError):
    """QEMU, SSH, disk space, a mirror or a host tool failed; the recipe is not to blame."""

    exit_code = EXIT_INFRASTRUCTURE
    build_status = "infrastructure"


class NotEnoughSpace(InfrastructureError):
    """A host disk has too little free space for the next step."""


class NotPublished(InfrastructureError):
    """The finished files are not all in their places; they still exist."""


class VmError(InfrastructureError):
    """The VM died, or its answer is missing or wrong."""


class DeadlineExceeded(InfrastructureError):
    """A step exceeded its time limit."""


@dataclass(frozen=True)
class Excerpt:
    """The line of a document with a defect, safe for a terminal, and the column of the caret."""

    text: str
    caret: int


@dataclass(frozen=True, order=True)
class Problem:
    """One defect of a document; lines and columns count from 1.

    `hint` says what to do. The `excerpt` is for people only: it is no part of `data`.
    """

    path: str
    line: int
    column: int
    code: str
    message: str
    hint: str | None = None
    excerpt: Excerpt | None = field(default=None, compare=False)

    def __str__(self) -> str:
        hint = f" ({printable(self.hint)})" if self.hint else ""
        return (
            f"{printable(self.path)}:{self.line}:{self.column}: "
            f"{printable(self.message)}{hint} [{self.code}]"
        )

    def data(self) -> dict[str, object]:
        """The problem as JSON shows it."""
        return {
            "path": self.path, "line": self.line, "column": self.column, "code": self.code,
            "message": self.message, "hint": self.hint,
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """The lines for people: the problem, its line with a caret, and what to do."""
        yield str(replace(self, hint=None))
        if self.excerpt is not None:
            yield f"  | {self.excerpt.text}"
            yield f"  | {' ' * cell_len(self.excerpt.text[: self.excerpt.caret])}^"
        if self.hint:
            yield f"  do:    {printable(self.hint)}"

    def annotation(self, kind: Literal["error", "notice"]) -> str:
        """Returns a workflow command for GitHub Actions, which shows the problem beside its line.

        The format is documented in "Workflow commands for GitHub Actions". The escapes follow
        GitHub's toolkit (packages/core/src/command.ts).
        """
        where = {
            "file": self.path, "line": self.line, "col": self.column, "title": self.code
        }  # fmt: skip
        properties = ",".join(f"{k}={command_value(str(v), ':,')}" for k, v in where.items())
        hint = f" ({self.hint})" if self.hint else ""
        return f"::{kind} {properties}::{command_value(f'{self.message}{hint}')}"


def command_value(text: str, extra: str = "") -> str:
    """A value for a workflow command; `extra` are the characters that end a property."""
    for character in f"%\r\n{extra}":
        text = text.replace(character, f"%{ord(character):02X}")
    return printable(text)


class InvalidDocument(ParticleError):
    """A recipe or template is not valid; `problems` lists all of its defects.

    `notes` are further remarks, which are no defects.
    """

    exit_code = EXIT_USAGE

    def __init__(self, problems: Sequence[Problem], notes: Sequence[Problem] = ()) -> None:
        count = len(problems)
        super().__init__(f"{problems[0].path}: {count} error{'s' if count > 1 else ''}")
        self.problems = tuple(sorted(problems))
        self.notes = tuple(notes)

    @classmethod
    def raise_all(cls, found: Sequence[InvalidDocument]) -> None:
        """Raises one error with the problems of several documents; returns if there are none."""
        if found:
            # Several documents may include the same file.
            problems = dict.fromkeys(p for each in found for p in each.problems)
            raise cls([*problems], [*dict.fromkeys(n for each in found for n in each.notes)])


class Interrupted(BaseException):
    """The user or the system asked the program to end.

    It derives from BaseException, so that no `except Exception` swallows it. `log` is the log of
    what was interrupted, if there is one.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
        self.log: Path | None = None

    def shown(self) -> ParticleError:
        """The error that the user sees."""
        name = signal.Signals(self.signal_number).name
        error = ParticleError(f"ended by {name}", log=self.log)
        error.build_status = "cancelled"
        return error

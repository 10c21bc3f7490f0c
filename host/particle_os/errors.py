"""The errors that a user sees, each with the exit code that it ends the program with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_STAGE = 3
EXIT_NOT_BOOTED = 4
EXIT_INFRASTRUCTURE = 5
EXIT_SIGNAL = 128

_UNPRINTABLE = re.compile(
    r"[^\t\x20-\x7e\xa0-\u061b\u061d-\u200a\u2010-\u2027\u202f-\u2065\u2070-\ud7ff\ue000-\uffff]"
)
# The userinfo of a URL (RFC 3986, 3.2.1). An '@' stands before a container image's digest, too.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^\s/@:'\"]*:[^\s'\"]*|[^\s/'\"]+)@(?!sha256:)")


def without_credentials(text: str) -> str:
    """`text` without the user names and passwords in its URLs."""
    return _CREDENTIALS.sub("***@", text)


def printable(text: str, limit: int = 2000) -> str:
    """`text` safe to show on a terminal: control and bidirectional characters are escaped."""
    cut = text[:limit]
    return _UNPRINTABLE.sub(lambda m: m.group().encode("unicode_escape").decode("ascii"), cut)


class ParticleError(Exception):
    """What happened (`brief`), what to do (`hint`), and the last lines that tell why (`tail`)."""

    exit_code: ClassVar[int] = EXIT_INTERNAL

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


class UsageError(ParticleError):
    """The command line asks for something that cannot be."""

    exit_code = EXIT_USAGE


class StageFailed(ParticleError):
    """A stage of the recipe failed."""

    exit_code = EXIT_STAGE


class NotBooted(ParticleError):
    """The image did not pass its boot test."""

    exit_code = EXIT_NOT_BOOTED


class Defective(ParticleError):
    """The image was looked at, and something is wrong with it."""

    exit_code = EXIT_NOT_BOOTED


class InfrastructureError(ParticleError):
    """QEMU, SSH, disk space, a mirror or a tool of the host failed, not the recipe."""

    exit_code = EXIT_INFRASTRUCTURE


class NotEnoughSpace(InfrastructureError):
    """A disk of the host has not the room that the next step needs."""


class VmError(InfrastructureError):
    """The VM died, or does not answer as it should."""


class DeadlineExceeded(InfrastructureError):
    """Something took longer than it may."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with a document; lines and columns count from 1."""

    path: str
    line: int
    column: int
    code: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return (
            f"{printable(self.path)}:{self.line}:{self.column}: "
            f"{printable(self.message)}{hint} [{self.code}]"
        )

    def annotation(self, kind: Literal["error", "notice"]) -> str:
        """As a workflow command of GitHub Actions, which shows it beside the line.

        See "Workflow commands for GitHub Actions" in GitHub's documentation; the escapes are those
        of its toolkit (packages/core/src/command.ts).
        """
        where = {
            "file": self.path, "line": self.line, "col": self.column, "title": self.code
        }  # fmt: skip
        properties = ",".join(f"{k}={_escaped(str(v), ':,')}" for k, v in where.items())
        hint = f" ({self.hint})" if self.hint else ""
        return f"::{kind} {properties}::{_escaped(f'{self.message}{hint}')}"


def _escaped(text: str, more: str = "") -> str:
    for character in f"%\r\n{more}":
        text = text.replace(character, f"%{ord(character):02X}")
    return printable(text)


class InvalidDocument(ParticleError):
    """A recipe or template is not valid; `problems` lists everything wrong with it.

    `notes` are what else is to be told of it.
    """

    exit_code = EXIT_USAGE

    def __init__(self, problems: Sequence[Problem], notes: Sequence[Problem] = ()) -> None:
        count = len(problems)
        super().__init__(f"{problems[0].path}: {count} error{'s' if count > 1 else ''}")
        self.problems = tuple(sorted(problems))
        self.notes = tuple(notes)


class Interrupted(BaseException):
    """The user or the system asked the program to end; not an Exception, so nothing swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

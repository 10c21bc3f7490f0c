"""Answers to questions of packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from particle_agent.contract.options import Confidential, Options
from particle_agent.contract.values import DebconfQuestion, DebconfValue, InstalledName
from particle_agent.errors import StageError
from particle_agent.target.target import Target

# Answers of these types appear in messages. Others, also of misspelt types, may be passwords.
SHOWN_ANSWERS = ("string", "boolean", "select", "multiselect", "note", "text")


@dataclass(frozen=True, kw_only=True)
class Answer(Options):
    """An answer to a question of a package (debconf-set-selections(1))."""

    # A value in place of another option may be the answer.
    package: Annotated[InstalledName, Confidential()]
    """The package that asks."""
    question: Annotated[DebconfQuestion, Confidential()]
    """The question, such as locales/default_environment_locale."""
    type: Annotated[
        Literal["string", "boolean", "select", "multiselect", "note", "text", "password"],
        Confidential(),
    ]
    """The type of the question."""
    value: Annotated[DebconfValue, Confidential("type", SHOWN_ANSWERS)]
    """The answer. Separate several answers of a multiselect with commas."""


def preseed(target: Target, answers: Sequence[Answer]) -> None:
    """Sets the answers. Raises StageError without debconf."""
    if not answers:
        return
    if not target.exists("/usr/bin/debconf-set-selections"):
        raise StageError(
            "the base has no debconf-set-selections",
            hint="Install 'debconf' in an earlier apt stage, or leave 'debconf' out.",
        )
    lines = [f"{a.package} {a.question} {a.type} {a.value}\n" for a in answers]
    target.chroot(["debconf-set-selections"], stdin="".join(lines))

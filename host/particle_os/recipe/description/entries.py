"""The entries of the reference: stages, checks and keys, with their options."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from particle_os.documents.words import did_you_mean, nearest
from particle_os.errors import UsageError


@dataclass(frozen=True)
class Option:
    """One option; `inner` are the classes that its type refers to."""

    name: str
    type: str
    required: bool
    default: str
    description: str
    inner: tuple[str, ...]


@dataclass(frozen=True)
class ReferenceEntry:
    """The description of a stage, or of a class within the options of a stage."""

    name: str
    description: str
    options: tuple[Option, ...]


def unknown(what: str, name: str, known: Collection[str], hint: str | None = None) -> UsageError:
    """The error about an unknown name; `hint` replaces the hint with the known names."""
    names = sorted(known)
    hint = hint or did_you_mean(nearest(name, names), names)
    return UsageError(f"there is no {what} '{name}'", hint=hint)

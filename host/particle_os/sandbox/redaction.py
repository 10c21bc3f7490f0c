"""Hides secrets in the events and the output of a VM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

from particle_os.recipe.secrets import LEAST

T = TypeVar("T")
HIDDEN = "***"


def texts(values: Iterable[bytes]) -> list[str]:
    """The texts to hide: each value, and each line of a value; the longest first."""
    parts = {part for value in values for part in (value, *value.splitlines())}
    found = {part.decode("utf-8", "replace") for part in parts if len(part.strip()) >= LEAST}
    return sorted(found, key=lambda text: (-len(text), text))


def hide(value: T, hidden: Sequence[str]) -> T:
    """Replaces the texts `hidden` in a text, or in all texts of an event of the agent."""
    if not hidden:
        return value
    if isinstance(value, str):
        for text in hidden:
            value = value.replace(text, HIDDEN)  # type: ignore[assignment]
        return value
    if isinstance(value, tuple):
        return tuple(hide(item, hidden) for item in value)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in fields(value) if f.name not in ("type", "kind")]
        return replace(value, **{n: hide(getattr(value, n), hidden) for n in names})
    return value

"""The explicit choices of earlier stages, which later stages keep.

They lie in a file beside the image, on the scratch disk, so that checkpoints keep them too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from particle_agent.target.target import Target

NAME = "chosen.json"
# Disabled units of the system and of users, and the paths of modes and owners that a recipe names.
Kind = Literal["disabled", "disabled-for-users", "mode", "owner"]


def chosen(target: Target, kind: Kind) -> frozenset[str]:
    """The names of a kind that stages have chosen."""
    return frozenset(_read(target).get(kind, ()))


def choose(target: Target, kind: Kind, names: Iterable[str]) -> None:
    """Records choices."""
    if added := set(names) - chosen(target, kind):
        _write(target, kind, chosen(target, kind) | added)


def forget(target: Target, kind: Kind, names: Iterable[str]) -> None:
    """Removes choices, because a later stage has chosen otherwise."""
    if gone := chosen(target, kind) & set(names):
        _write(target, kind, chosen(target, kind) - gone)


def _file(target: Target) -> Path:
    return target.root.parent / NAME


def _read(target: Target) -> dict[str, list[str]]:
    place = _file(target)
    found: dict[str, list[str]] = json.loads(place.read_text()) if place.exists() else {}
    return found


def _write(target: Target, kind: Kind, names: Iterable[str]) -> None:
    _file(target).write_text(json.dumps({**_read(target), kind: sorted(names)}))

"""Paths of a root file system other than the running one. Links in it never lead out of it."""

from __future__ import annotations

import os
from pathlib import Path

from particle_agent.errors import StageError

MAX_SYMLINKS = 40


def resolve(root: Path, path: str, *, follow: bool = True) -> Path:
    """Resolves `path` as the system in `root` would, and returns its place in the running system.

    With `follow` false the last component is not resolved. The path need not exist. Raises
    StageError on a loop of links.
    """
    pending = _parts(path)
    # The resolved directories from the root on. Strings are fast, and the interpreter is emulated.
    places = [str(root)]
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            places[1:] = places[1:-1]
            continue
        here = f"{places[-1]}/{part}"
        if (pending or follow) and os.path.islink(here):  # noqa: PTH114
            links += 1
            if links > MAX_SYMLINKS:
                raise StageError(f"too many levels of symbolic links in the target's {path}")
            link = os.readlink(here)
            if link.startswith("/"):
                del places[1:]
            pending += _parts(link)
            continue
        places.append(here)
    return Path(places[-1])


def _parts(path: str) -> list[str]:
    """The components of a path, the last one first."""
    return [part for part in path.split("/") if part not in ("", ".")][::-1]

"""Lists what is in directories of the host that a recipe names, in bounded time and memory.

The directory can be another user's or the root of a file system. The errors are OSError, with a
`strerror` for the user.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from particle_os.recipe.files.inside import outside

# All files, links and directories that one name of a recipe makes the host look at.
ENTRIES_LIMIT = 100_000
LEVELS_LIMIT = 500
# The most files of one directory or pattern that messages name.
NAMED = 20


def walk(directory: Path) -> Iterator[tuple[str, bool]]:
    """Yields the path of everything below a directory, and whether it is a directory itself.

    The paths are relative to `directory`. A directory comes before its content, and the names in a
    directory are sorted. Links are not followed, except for `directory` itself.
    """
    left = ENTRIES_LIMIT
    waiting = [("", True)]
    while waiting:
        name, is_directory = waiting.pop()
        if name:
            yield name, is_directory
        if is_directory:
            if name.count("/") >= LEVELS_LIMIT:
                raise OSError(errno.ELOOP, "has too many levels of directories")
            entries = _entries(directory / name, left)
            left -= len(entries)
            prefix = f"{name}/" if name else ""
            waiting += [
                (prefix + entry.name, entry.is_dir(follow_symlinks=False))
                for entry in reversed(entries)
            ]


def matching(start: Path, pattern: Sequence[str], inside: Path | None) -> list[Path]:
    """The files that a pattern stands for, sorted; its parts are patterns for single names.

    It follows no link out of `inside`, unless that is None.
    """
    left = ENTRIES_LIMIT
    found = [start]
    for part in pattern:
        below: list[Path] = []
        for directory in found:
            if directory.is_dir() and not outside(directory, inside):
                entries = _entries(directory, left)
                left -= len(entries)
                below += [directory / e.name for e in entries if fnmatchcase(e.name, part)]
        found = below
    return sorted(found)


def _entries(directory: Path, most: int) -> list[os.DirEntry[str]]:
    """The entries of a directory, sorted by name; raises OSError for more than `most`."""
    with os.scandir(directory) as entries:
        found = list(islice(entries, most + 1))
    if len(found) > most:
        raise OSError(errno.E2BIG, f"holds more than {ENTRIES_LIMIT} files")
    return sorted(found, key=lambda entry: entry.name)


class Few:
    """Passes on the first complaints about the files of one name, and that there are more."""

    def __init__(self, complain: Callable[..., None]) -> None:
        self._complain = complain
        self._count = 0

    def __call__(self, *complaint: object) -> None:
        self._count += 1
        if self._count <= NAMED:
            self._complain(*complaint)
        elif self._count == NAMED + 1:
            *place, _ = complaint
            self._complain(*place, "and more files")

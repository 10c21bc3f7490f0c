"""Puts files, directories and links into the target, with the owners and modes that users expect.

What exists keeps its owner and mode, unless the recipe names others. What is new in a regular
user's home directory belongs to that user, and everything else to root.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from particle_agent.errors import StageError
from particle_agent.system.accounts import HOMES, entries, id_of, regular_users
from particle_agent.system.chosen import choose
from particle_agent.target.target import Target


@dataclass(frozen=True)
class Owner:
    """A user ID and a group ID; None leaves the choice to the place of the file."""

    user: int | None = None
    group: int | None = None

    def over(self, other: Owner) -> Owner:
        """This owner; `other` fills what it leaves open."""
        return Owner(
            other.user if self.user is None else self.user,
            other.group if self.group is None else self.group,
        )


NOBODY = Owner()


def owner_of(target: Target, user: str | None, group: str | None, what: str) -> Owner:
    """The owner with these names. Raises StageError that begins with `what` for unknown ones."""
    found: list[int | None] = []
    for name, database, kind in ((user, "passwd", "user"), (group, "group", "group")):
        fields = entries(target, database).get(name) if name is not None else None
        if fields is None and name not in (None, "root"):
            raise StageError(
                f"{what}: there is no {kind} {name} in the image",
                hint="Make it in a users stage, or install its package, before this stage.",
            )
        found.append(id_of(fields, 2) if fields else None if name is None else 0)
    return Owner(*found)


class Patterns:
    """Values for the paths that match patterns; a later pattern outweighs an earlier one."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = [(text, _names(text), value) for text, value in values.items()]
        self._used: set[str] = set()

    def get(self, path: str) -> str | None:
        """The value for a path; None if no pattern matches."""
        found = None
        names = _names(path)
        for text, pattern, value in self._values:
            # As in other programs, '**' at the end stands for something below the directory.
            rest = ["*"] if pattern[-1:] == ["**"] else []
            if _match([*pattern, *rest], names, "**", _name_matches):
                self._used.add(text)
                found = value
        return found

    def unused(self) -> Iterator[str]:
        """The patterns that no path has matched."""
        return (text for text, _, _ in self._values if text not in self._used)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _name_matches(pattern: str, name: str) -> bool:
    return _match(pattern, name, "*", lambda one, character: one in ("?", character))


def _match(
    pattern: Sequence[str], items: Sequence[str], several: str, fits: Callable[[str, str], bool]
) -> bool:
    """Whether a pattern matches all items. `several` in it stands for any number of items.

    Only the last `several` is tried again, so the time is at most the product of both lengths.
    """
    position = item = 0
    last, resumed = -1, 0
    while item < len(items):
        part = pattern[position] if position < len(pattern) else None
        if part == several:
            last, resumed = position, item
            position += 1
        elif part is not None and fits(part, items[item]):
            position, item = position + 1, item + 1
        elif last >= 0:
            resumed += 1
            position, item = last + 1, resumed
        else:
            return False
    return all(part == several for part in pattern[position:])


class Placer:
    """Puts things into the target; `owner` is an owner that the recipe names."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._homes = [
            (target.path(user.home), Owner(user.uid, user.gid)) for user in regular_users(target)
        ]
        self._modes, self._owners = set[str](), set[str]()

    def directory(
        self,
        path: str,
        *,
        mode: int | None,
        owner: Owner,
        new_mode: int = 0o755,
        new_owner: Owner = NOBODY,
    ) -> None:
        """Makes a directory, or gives an existing one the mode and owner that the recipe names.

        `new_mode` and `new_owner` are for a directory that was missing.
        """
        _refuse(self._target, path, directory=False)
        place = self._target.path(path)
        self._record(place, mode, owner)
        missing = not place.exists()
        if missing:
            self._make(place)
            mode = new_mode if mode is None else mode
            owner = owner.over(new_owner).over(self._at(place))
        self._chown(place, owner)
        if mode is not None:
            # chown(2) clears the set-group-ID bit, so this comes second.
            place.chmod(mode)

    def file(self, path: str, data: IO[bytes], *, mode: int | None, owner: Owner) -> None:
        """Writes a file in place of an existing file or link. Without `mode` a file keeps its mode.

        A new file without `mode` has the mode 0644.
        """
        _refuse(self._target, path, directory=True)
        place = self._target.path(path, follow=False)
        self._record(place, None, owner)
        self._make(place.parent)
        before = Owner()
        if place.is_file() and not place.is_symlink():
            status = place.stat()
            before = Owner(status.st_uid, status.st_gid)
            mode = stat.S_IMODE(status.st_mode) if mode is None else mode
        mode = 0o644 if mode is None else mode
        whose = owner.over(before).over(self._at(place))
        assert whose.user is not None and whose.group is not None
        self._target.write_from(data, path, mode=mode, owner=(whose.user, whose.group))

    def link(self, path: str, to: str, *, owner: Owner = NOBODY) -> None:
        """Makes a symbolic link in place of an existing file or link."""
        _refuse(self._target, path, directory=True)
        place = self._target.path(path, follow=False)
        self._record(place, None, owner)
        self._make(place.parent)
        self._target.symlink(path, to)
        self._chown(place, owner.over(self._at(place)))

    def _record(self, place: Path, mode: int | None, owner: Owner) -> None:
        """Notes a choice of the recipe in home directories, whose users may come later."""
        if self._target.path(HOMES) in place.parents:
            path = str(place.relative_to(self._target.root))
            if mode is not None:
                self._modes.add(path)
            if owner.user is not None:
                self._owners.add(path)

    def record(self) -> None:
        """Keeps the chosen modes and owners for later stages."""
        choose(self._target, "mode", self._modes)
        choose(self._target, "owner", self._owners)

    def _make(self, place: Path) -> None:
        """Makes a directory and its missing parents."""
        missing = [each for each in (place, *place.parents) if not each.exists()]
        for each in reversed(missing):
            each.mkdir(mode=0o755)
            self._chown(each, self._at(each))

    def _at(self, place: Path) -> Owner:
        """The owner of what is new at a place."""
        for home, owner in self._homes:
            if home in place.parents:
                return owner
        return Owner(0, 0)

    def _chown(self, place: Path, owner: Owner) -> None:
        if owner != NOBODY:
            user, group = (-1 if each is None else each for each in (owner.user, owner.group))
            self._target.chown(place, (user, group))


def _refuse(target: Target, path: str, *, directory: bool) -> None:
    """Raises StageError when a path is a directory (or, with `directory` false, is none)."""
    place = target.path(path, follow=not directory)
    if place.exists() and not place.is_symlink() and place.is_dir() == directory:
        there = "a directory" if directory else "no directory"
        raise StageError(f"{path} exists in the image and is {there}")

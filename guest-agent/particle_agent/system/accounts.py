"""Users and groups of the target."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from particle_agent.errors import StageError
from particle_agent.system.chosen import chosen
from particle_agent.target.target import Target

# Debian Policy, 9.2.2: the IDs of ordinary users.
REGULAR_IDS = range(1000, 60000)
# A user ID has 32 bits, and the last one means none.
LARGEST_ID = (1 << 32) - 2
MOST_ENTRIES = 1 << 16
FIELDS = {"passwd": 7, "group": 4}
HOMES, SKELETON = "/home/", "/etc/skel"
# login.defs(5) of Debian 13: HOME_MODE. It replaces the mode of directories that no one has chosen.
HOME_MODE, OPEN_MODE = 0o700, 0o755


@dataclass(frozen=True)
class RegularUser:
    """An account of a person in passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str


def entries(target: Target, database: str) -> dict[str, list[str]]:
    """The entries of passwd(5) or group(5): name to fields. Empty when the file is missing.

    Raises StageError for a file with very many entries.
    """
    found = {}
    for line in _lines(target, f"/etc/{database}"):
        fields = line.split(":")
        if len(fields) > 3:
            found[fields[0]] = fields + [""] * (FIELDS[database] - len(fields))
    return found


def numeric(text: str) -> int | None:
    """An ID in passwd(5), group(5) or subuid(5); None for a text that is none."""
    digits = len(text) <= len(str(LARGEST_ID)) and text.isascii() and text.isdigit()
    return int(text) if digits and int(text) <= LARGEST_ID else None


def id_of(fields: list[str], index: int) -> int:
    """The ID in a field of an entry. Raises StageError if there is none."""
    found = numeric(fields[index])
    if found is None:
        raise StageError(
            f"the entry of {fields[0][:40]} in the image's accounts has no valid ID",
            hint="Compare /etc/passwd and /etc/group of the base with passwd(5).",
        )
    return found


def subordinate_ids(target: Target, path: str) -> Iterator[tuple[str, range]]:
    """The names and the ranges of IDs in subuid(5)."""
    for line in _lines(target, path):
        name, *numbers = line.split(":")
        first, count = (numeric(text) for text in (*numbers, "", "")[:2])
        if first is not None and count is not None:
            yield name, range(first, first + count)


def _lines(target: Target, path: str) -> list[str]:
    lines = target.read(path).split("\n") if target.exists(path) else []
    if len(lines) > MOST_ENTRIES:
        raise StageError(f"{path} of the image has more than {MOST_ENTRIES} lines")
    return lines


def regular_users(target: Target) -> Iterator[RegularUser]:
    """The accounts of people, which have a home directory of their own."""
    for name, fields in entries(target, "passwd").items():
        uid, gid, home = numeric(fields[2]), numeric(fields[3]), fields[5]
        named = home.strip("/") and home.startswith("/")
        if uid is not None and gid is not None and uid in REGULAR_IDS and named:
            yield RegularUser(name, uid, gid, home)


def take_home(target: Target, name: str, skeleton: str = SKELETON) -> None:
    """Gives a new regular user the home directory that was there before, and notes that.

    The modes and owners that stages have chosen stay.

    useradd(8) leaves an existing home directory as it is: root's, and without the skeleton. Home
    directories outside of /home, also behind a link, may belong to a service.
    """
    user = next((each for each in regular_users(target) if each.name == name), None)
    if user is None or not user.home.startswith(HOMES):
        return
    home = target.path(user.home)
    if target.path(HOMES) not in home.parents or not home.is_dir() or not target.holds(home):
        return
    _complete(target, target.path(skeleton), home)
    ours = {target.root / path for path in chosen(target, "owner")}
    modes = {target.root / path for path in chosen(target, "mode")}
    was_roots = home.stat().st_uid == 0 and home not in ours
    closed = was_roots and home not in modes and stat.S_IMODE(home.stat().st_mode) == OPEN_MODE
    if closed:
        home.chmod(HOME_MODE)
    for place in _of_root(target, home):
        if place not in ours:
            target.chown(place, (user.uid, user.gid))
    if was_roots:
        mode = f", and has the mode {HOME_MODE:04o}" if closed else ""
        target.reporter.note(
            f"{user.home} was there before the user {name}: it now belongs to the user, with "
            f"root's files in it{mode}; a files stage that names owner and mode can change that"
        )


def _of_root(target: Target, home: Path) -> Iterator[Path]:
    """The files of root in a home directory, and the directory itself if it is root's."""
    for directory, directories, files in os.walk(home):
        directories[:] = [each for each in directories if target.holds(Path(directory, each))]
        for entry in (".", *directories, *files):
            place = Path(directory, entry)
            if place.lstat().st_uid == 0:
                yield place


def _complete(target: Target, skeleton: Path, home: Path) -> None:
    """Copies what is missing in a home directory. Links are copied, and never followed."""
    if not target.holds(skeleton):
        return
    for directory, directories, files in os.walk(skeleton):
        here = home / Path(directory).relative_to(skeleton)
        for name in (*directories, *files):
            source, place = Path(directory, name), here / name
            if os.path.lexists(place):
                continue
            if source.is_symlink() or source.is_file():
                shutil.copy2(source, place, follow_symlinks=False)
            elif source.is_dir() and source != home:
                place.mkdir(mode=stat.S_IMODE(source.stat().st_mode))
        # Anything but a directory leads elsewhere, or is not the skeleton's.
        directories[:] = [
            name
            for name in directories
            if target.holds(Path(directory, name)) and _is_real_directory(here / name)
        ]


def _is_real_directory(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()

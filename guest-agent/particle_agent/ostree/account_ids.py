"""Keeps the IDs of system accounts over the versions of a system.

Packages take the next free ID for their accounts, so the order of installation decides. The files
in /var of a machine have IDs and no names: an account must have the same ID in each version.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from particle_agent.errors import StageError
from particle_agent.system import accounts
from particle_agent.target.target import Target

# Debian Policy, 9.2.2: packages get these IDs in turn. Lower ones are the same in every system.
IN_TURN = range(100, 1000)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")
# passwd(5) and group(5): accounts of the parent that the system lacks; they have no login.
GONE = {
    "passwd": "{name}:*:{id}:{group}::/nonexistent:/usr/sbin/nologin",
    "group": "{name}:*:{id}:",
}
CAPABILITIES = "security.capability"
LINES_LIMIT = 1 << 16


@dataclass
class _Ids:
    """The IDs of a database: of the parent by name, and the new ones by the present ones."""

    parent: Mapping[str, int]
    present: Mapping[str, int]
    changed: dict[int, int] = field(default_factory=dict)

    @property
    def taken(self) -> set[int]:
        return {*self.parent.values(), *self.present.values(), *self.changed.values()}

    @property
    def gone(self) -> dict[str, int]:
        """The accounts of the parent that the system lacks."""
        return {name: known for name, known in self.parent.items() if name not in self.present}


def keep(target: Target, passwd: str, group: str) -> None:
    """Gives the system accounts the IDs that the files passwd(5) and group(5) of the parent say.

    Accounts that the system lacks are added without a login: no other account gets their IDs.
    """
    users = _Ids(_of_text(passwd), _of_target(target, "passwd"))
    groups = _Ids(_of_text(group), _of_target(target, "group"))
    _choose(users, groups)
    if users.changed or groups.changed:
        change_files(target, users.changed, groups.changed)
    primary = {name: int(fields[3]) for name, fields in _fields(passwd) if fields[3].isdigit()}
    for database, ids in (("passwd", users), ("group", groups)):
        lines = list(_lines(target, database, ids.changed, groups.changed))
        for name, known in ids.gone.items():
            words = {"name": name, "id": known, "group": primary.get(name, known)}
            lines.append(GONE[database].format(**words).encode())
        if lines != target.read_bytes(f"/etc/{database}").splitlines():
            place = target.path(f"/etc/{database}")
            place.write_bytes(b"".join(line + b"\n" for line in lines))
    if count := len(users.changed) + len(groups.changed):
        target.reporter.note(f"{count} users and groups get the IDs that they have in the parent")


def _of_text(text: str) -> dict[str, int]:
    """The IDs that packages got in turn. A parent cannot give any other ID to an account."""
    found = {name: accounts.numeric(fields[2]) for name, fields in _fields(text)}
    return {name: known for name, known in found.items() if known is not None and known in IN_TURN}


def _of_target(target: Target, database: str) -> dict[str, int]:
    found = accounts.entries(target, database)
    known = {name: accounts.numeric(fields[2]) for name, fields in found.items()}
    return {name: number for name, number in known.items() if number is not None}


def _fields(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines()[:LINES_LIMIT]:
        fields = line.split(":")
        if len(fields) > 3 and NAME.fullmatch(fields[0]):
            yield fields[0], fields


def _choose(users: _Ids, groups: _Ids) -> None:
    """Decides the new IDs: the parent's, or a free one where another account of it had the ID."""
    free = (number for number in reversed(IN_TURN) if number not in users.taken | groups.taken)
    moved: dict[str, int] = {}
    for ids in (users, groups):
        reserved = set(ids.parent.values())
        for name, known in ids.present.items():
            if known not in IN_TURN or known in ids.changed:
                continue
            if name in ids.parent:
                wanted = ids.parent[name]
            elif known in reserved:
                wanted = moved.get(name) or moved.setdefault(name, _next(free))
            else:
                continue
            if wanted != known:
                ids.changed[known] = wanted


def _next(free: Iterator[int]) -> int:
    if (number := next(free, None)) is None:
        raise StageError("no ID is left for an account that the parent lacks")
    return number


def _lines(
    target: Target, database: str, changed: Mapping[int, int], groups: Mapping[int, int]
) -> Iterator[bytes]:
    """The lines of a database with the new IDs."""
    for line in target.read_bytes(f"/etc/{database}").splitlines():
        fields = line.split(b":")
        places = ((2, changed), (3, groups)) if database == "passwd" else ((2, changed),)
        for index, ids in places:
            number = fields[index] if len(fields) > index else b""
            if number.isdigit() and int(number) in ids:
                fields[index] = b"%d" % ids[int(number)]
        yield b":".join(fields)


def change_files(target: Target, users: Mapping[int, int], groups: Mapping[int, int]) -> None:
    """Gives the files of the accounts their new IDs."""
    linked: set[int] = set()
    for directory, directories, files in os.walk(target.root):
        directories[:] = [n for n in directories if target.holds(target.root / directory / n)]
        for name in (*directories, *files):
            place = target.root / directory / name
            status = place.lstat()
            owner = users.get(status.st_uid, -1), groups.get(status.st_gid, -1)
            if owner == (-1, -1) or status.st_ino in linked:
                continue
            # A file with several names has one owner, which changes once.
            linked.add(status.st_ino)
            kept = _capabilities(str(place))
            target.chown(place, owner)
            if not stat.S_ISLNK(status.st_mode):
                # chown(2) clears the set-user-ID bit and the capabilities of a program.
                place.chmod(stat.S_IMODE(status.st_mode))
            if kept is not None:
                os.setxattr(place, CAPABILITIES, kept, follow_symlinks=False)


def _capabilities(path: str) -> bytes | None:
    try:
        return os.getxattr(path, CAPABILITIES, follow_symlinks=False)
    except OSError:
        return None

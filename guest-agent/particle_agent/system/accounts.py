"""Users and groups of the target."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from particle_agent.target.target import Target

# Debian Policy, 9.2.2: the IDs of ordinary users.
REGULAR_IDS = range(1000, 60000)
HOMES, SKELETON = "/home/", "/etc/skel"
# login.defs(5) of Debian 13: HOME_MODE.
HOME_MODE = 0o700


@dataclass(frozen=True)
class RegularUser:
    """An account of a person in passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str


def entries(target: Target, database: str) -> dict[str, list[str]]:
    """The entries of passwd(5) or group(5): name to fields. Empty when the file is missing."""
    path = f"/etc/{database}"
    lines = target.read(path).splitlines() if target.exists(path) else []
    return {line.split(":")[0]: line.split(":") for line in lines if line.count(":") >= 3}


def regular_users(target: Target) -> Iterator[RegularUser]:
    """The accounts of people, which have a home directory of their own."""
    for name, fields in entries(target, "passwd").items():
        uid, gid, home = (fields[i] if i < len(fields) else "" for i in (2, 3, 5))
        numbers = uid.isascii() and uid.isdigit() and gid.isascii() and gid.isdigit()
        if numbers and int(uid) in REGULAR_IDS and home.strip("/") and home.startswith("/"):
            yield RegularUser(name, int(uid), int(gid), home)


def take_home(target: Target, name: str) -> None:
    """Gives a new regular user what root has put into the home directory before.

    useradd(8) leaves an existing home directory as it is: root's, and without the skeleton. Home
    directories outside of /home may belong to a service.
    """
    user = next((each for each in regular_users(target) if each.name == name), None)
    if user is None or not user.home.startswith(HOMES) or not target.exists(user.home):
        return
    home = target.path(user.home)
    if target.exists(SKELETON):
        _complete(target.path(SKELETON), home)
    if home.stat().st_uid == 0:
        home.chmod(HOME_MODE)
    for directory, directories, files in os.walk(home):
        for entry in (".", *directories, *files):
            place = Path(directory, entry)
            if place.lstat().st_uid == 0:
                target.chown(place, (user.uid, user.gid))


def _complete(skeleton: Path, home: Path) -> None:
    """Copies what is missing in a home directory."""
    for source in skeleton.rglob("*"):
        place = home / source.relative_to(skeleton)
        if os.path.lexists(place) or not place.parent.is_dir() or place.parent.is_symlink():
            continue
        if source.is_symlink() or source.is_file():
            shutil.copy2(source, place, follow_symlinks=False)
        elif source.is_dir():
            place.mkdir(mode=source.stat().st_mode & 0o7777)

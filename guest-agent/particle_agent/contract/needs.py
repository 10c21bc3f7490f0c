"""The needs of stages: what the system must have when a stage runs.

A stage declares its needs (`StageOptions.needs`). The stages before it answer whether they may
bring a need (`StageOptions.may_bring`); in doubt they answer yes. A need that neither the base nor
a stage meets is an error. For a known base the host reports it before anything starts. For another
base the agent examines the system and reports it before the first stage. A need that is unmet
although a stage might have brought it is an error of the stage that has the need.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Self

from particle_agent.contract import debian
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.table import ARCHITECTURES

# The `Need.what` of an init, which several stages refer to.
INIT = "package init"
# By `Need.what`, the common packages of recipes that do not bring it. "common" has all of them.
WITHOUT = debian.WITHOUT
TWIN = re.compile(rf"(?<=-)(?:{'|'.join(ARCHITECTURES)})(?=-|$)")
# mount(8) mounts these types only with a program: the package and the program. The kernel's own
# types, such as exfat and f2fs, need none.
MOUNTS = {
    "nfs": ("nfs-common", "/usr/sbin/mount.nfs"),
    "nfs4": ("nfs-common", "/usr/sbin/mount.nfs4"),
    "cifs": ("cifs-utils", "/usr/sbin/mount.cifs"),
    "smb3": ("cifs-utils", "/usr/sbin/mount.smb3"),
    "ntfs-3g": ("ntfs-3g", "/usr/bin/ntfs-3g"),
    "davfs": ("davfs2", "/usr/sbin/mount.davfs"),
    "glusterfs": ("glusterfs-client", "/usr/sbin/mount.glusterfs"),
    "fuse.sshfs": ("sshfs", "/usr/bin/sshfs"),
    "fuse.s3fs": ("s3fs", "/usr/bin/s3fs"),
    "fuse.rclone": ("rclone", "/usr/bin/rclone"),
    "fuse.mergerfs": ("mergerfs", "/usr/bin/mergerfs"),
}


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something that the system must have when a stage runs.

    `what` identifies the need: "package locales", "group docker", "user deploy".
    `message` and `hint` are for the user. `key` is the place of the value in the options of the
    stage. `packages` are fnmatch(3) patterns of packages that bring it. With `others`, packages
    with any other name may bring it, too. The system meets the need when it has one of `files`,
    whose last two components may be patterns. Users and groups need no `files`: the agent looks
    their names up in passwd(5) and group(5).
    """

    what: str
    message: str
    hint: str
    key: tuple[str | int, ...] = ()
    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    others: bool = False

    def is_brought_by(self, package: str) -> bool:
        """Whether the package is known to bring it."""
        return any(is_one_of(name, self.packages) for name in {package, in_facts(package)})

    def within(self, suite: str) -> Self:
        """The need without the packages that do not bring it in a released suite of Debian."""
        others = debian.EXCEPTIONS.get(f"{suite}: {in_facts(self.what)}", ())
        return self.without(others) if others else self

    def without(self, packages: Collection[str]) -> Self:
        """The need that `packages` do not bring."""
        return replace(self, packages=tuple(one for one in self.packages if one not in packages))


def is_one_of(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name matches one of the fnmatch(3) patterns."""
    names, others = _prepared(patterns)
    return name in names or others.match(name) is not None


# Recipes ask for the same few lists of up to a hundred patterns, thousands of times.
@functools.lru_cache(maxsize=256)
def _prepared(patterns: tuple[str, ...]) -> tuple[frozenset[str], re.Pattern[str]]:
    """The patterns that are plain names, and all others as one regular expression."""
    others = [one for one in patterns if set("*?[") & set(one)]
    joined = "|".join(map(fnmatch.translate, others)) if others else r"(?!)"
    return frozenset(patterns) - frozenset(others), re.compile(joined)


@functools.lru_cache(maxsize=4096)
def in_facts(name: str) -> str:
    """The name of a package in the facts about Debian, which are those of amd64.

    The packages of other architectures that have the name of the architecture in their own names
    have the relations of their twins of amd64.
    """
    return TWIN.sub(AMD64.name, name)


def package(
    name: str,
    file: str,
    why: str,
    *key: str | int,
    others: bool = False,
) -> Need:
    """The need for a package, which the system has when it has `file`.

    `why` is the subject of the message. The packages in `debian.BRINGS` bring it with them in at
    least one suite.
    """
    return Need(
        what=f"package {name}",
        message=f"{why} needs the package '{name}', which no stage before it installs",
        hint=f"add '{name}' to the packages of an apt stage before it",
        key=key,
        packages=(name, *debian.BRINGS.get(in_facts(name), ())),
        files=(file,),
        others=others,
    )


def mount(kind: str, where: str, *key: str | int) -> Iterator[Need]:
    """The need of a mount of a type, if its type needs a program."""
    if kind in MOUNTS:
        name, program = MOUNTS[kind]
        yield package(name, program, f"the type '{kind}' of {where}", *key)


def group(name: str, why: str, *key: str | int) -> Need:
    """The need for a group. Any package may bring it: group names do not follow package names."""
    return Need(
        what=f"group {name}",
        message=f"{why}: no stage before makes the group '{name}'",
        hint="make it in a groups stage before this one, or install the package that brings it",
        key=key,
        others=True,
    )


def user(name: str, why: str, *key: str | int) -> Need:
    """The need for a user. Any package may bring it."""
    return Need(
        what=f"user {name}",
        message=f"{why}: no stage before makes the user '{name}'",
        hint="make it in a users stage before this one, or install the package that brings it",
        key=key,
        others=True,
    )

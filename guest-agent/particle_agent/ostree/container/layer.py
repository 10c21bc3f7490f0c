"""The layer of an OCI image: the tree of a commit as a tar archive.

In a container image, the files of /usr/etc are in /etc
(https://bootc.dev/bootc/filesystem.html#usretc). The format is that of layer.md in
https://github.com/opencontainers/image-spec/tree/v1.1.1: attributes are in pax records, and a name
that begins with `.wh.` means a file that is missing. /var of a commit is empty; the image has its
directories, which rules of tmpfiles.d make on machines.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from particle_agent.errors import StageError
from particle_agent.ostree.image.layout import DATABASE, ETC, OLD_DATABASE

CHUNK = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)
XATTR = "SCHILY.xattr."
# SELinux's labels are those of a machine, and overlayfs's those of a mount.
LEFT_OUT = ("security.selinux", "trusted.overlay.")
KINDS = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
}


class ByteSink(Protocol):
    """The recipient of an archive."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True)
class VarDirectory:
    """A directory of /var that rules of tmpfiles.d make on machines, and the image has before."""

    path: str
    mode: int
    uid: int
    gid: int

    @classmethod
    def of(cls, place: Path, path: str) -> VarDirectory:
        """The directory at `place`, under its path in the image without a slash before it."""
        status = place.lstat()
        return cls(path, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


@dataclass(frozen=True)
class LayerMember:
    """A file, directory or link of the layer, and its place in the tree."""

    header: tarfile.TarInfo
    place: Path

    @property
    def name(self) -> str:
        """The path in the image, without a slash before it."""
        return self.header.name

    def content(self) -> Iterator[bytes]:
        """The content of a regular file, of exactly the size in the header. Raises StageError."""
        left = self.header.size
        if not left:
            return
        with self.place.open("rb") as file:
            while left:
                if not (data := file.read(min(left, CHUNK))):
                    raise StageError(f"/{self.name} became shorter while it was read")
                left -= len(data)
                yield data


def members(tree: Path, latest: int | None) -> Iterator[LayerMember]:
    """The members of the layer for the tree of a commit, in the order of their paths.

    The tree of a system that is no commit has no /usr/etc, and becomes the layer as it is. No time
    is after `latest`, in seconds since 1970. Raises StageError for a file that no layer can have.
    """
    first: dict[tuple[int, int], str] = {}
    is_commit = os.path.lexists(tree / ETC[1:]) and not os.path.lexists(tree / "etc")
    left = [""]
    while left:
        name = left.pop()
        place = _place(tree, name) if is_commit else tree / name
        status = place.lstat()
        if name:
            yield LayerMember(_header(name, place, status, latest, first), place)
        if stat.S_ISDIR(status.st_mode):
            below = set(os.listdir(place))
            if is_commit:
                # The tree has /usr/etc, and the image /etc.
                below |= {"etc"} if name == "" else set()
                below -= {"etc"} if name == "usr" else set()
            left += sorted((f"{name}/{each}".lstrip("/") for each in below), reverse=True)


def of_var(tree: Path, directories: Iterable[VarDirectory], date: int) -> Iterator[LayerMember]:
    """The directories of /var that the tree lacks, and the link to dpkg's database.

    Programs that run in the image before a machine boots it need them: apt, for one.
    """
    for found in directories:
        if not os.path.lexists(tree / found.path):
            header = tarfile.TarInfo(found.path)
            header.type, header.mode = tarfile.DIRTYPE, found.mode
            header.uid, header.gid, header.mtime = found.uid, found.gid, date
            yield LayerMember(header, tree)
    link = tarfile.TarInfo(OLD_DATABASE[1:])
    link.type, link.mode, link.mtime = tarfile.SYMTYPE, 0o777, date
    link.linkname = f"../..{DATABASE}"
    if (tree / DATABASE[1:]).is_dir() and not os.path.lexists(tree / link.name):
        yield LayerMember(link, tree)


def write(member: LayerMember, sink: ByteSink) -> None:
    """Writes a member of the archive."""
    header = member.header
    sink.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    for data in member.content():
        sink.write(data)
    sink.write(bytes(-header.size % tarfile.BLOCKSIZE))


def _place(tree: Path, name: str) -> Path:
    if name == "etc" or name.startswith("etc/"):
        return tree / f"{ETC[1:]}{name.removeprefix('etc')}"
    return tree / name


def _header(
    name: str,
    place: Path,
    status: os.stat_result,
    latest: int | None,
    first: dict[tuple[int, int], str],
) -> tarfile.TarInfo:
    """The header of a member. `first` has the first name of each file with several ones."""
    header = tarfile.TarInfo(name)
    kind = KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise StageError(f"/{name} is neither a file nor a directory nor a link")
    header.type = kind
    header.mode = stat.S_IMODE(status.st_mode)
    header.uid, header.gid = status.st_uid, status.st_gid
    header.mtime = int(status.st_mtime)
    if latest is not None:
        header.mtime = min(header.mtime, latest)
    if header.issym():
        header.linkname = os.readlink(place)
    elif header.isreg() and status.st_nlink > 1:
        identity = (status.st_dev, status.st_ino)
        if known := first.get(identity):
            header.type, header.linkname = tarfile.LNKTYPE, known
            return header
        first[identity] = name
    if header.isreg():
        header.size = status.st_size
    header.pax_headers = dict(_attributes(name, place))
    return header


def _attributes(name: str, place: Path) -> Iterator[tuple[str, str]]:
    for key in sorted(os.listxattr(place, follow_symlinks=False)):
        if key.startswith(LEFT_OUT):
            continue
        if "=" in key:
            raise StageError(
                f"/{name} has the attribute {key!r}, and no layer can have a '=' in this name"
            )
        value = os.getxattr(place, key, follow_symlinks=False)
        yield f"{XATTR}{key}", value.decode("utf-8", "surrogateescape")

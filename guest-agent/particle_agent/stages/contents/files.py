"""Stage files: files, directories and symbolic links."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.options import HostTree, Options, Place, idle, refuse, repeated
from particle_agent.contract.values import AbsolutePath, FileMode, LinkText, UserName
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.system.accounts import entries
from particle_agent.target.target import Target


@dataclass(frozen=True, kw_only=True)
class File(Options):
    """A file with text from the recipe, or a copy of a host file. It replaces an existing file."""

    path: AbsolutePath
    """The path in the image. Missing parent directories are created."""
    content: str | None = None
    """The text of the file. Give either this or `source`."""
    source: HostTree | None = None
    """A file, or a directory with its content, to copy. The path is relative to the recipe."""
    mode: FileMode | None = None
    """The permissions, in quotes. The default is "0644", and "0755" for a directory and the
    executable files in it."""
    owner: UserName = "root"
    """The owner: a user in the image."""
    group: UserName = "root"
    """The group: a group in the image."""

    def __post_init__(self) -> None:
        if (self.content is None) == (self.source is None):
            raise ValueError(f"{self.path}: write either 'content' or 'source'")


@dataclass(frozen=True, kw_only=True)
class Directory(Options):
    """A directory. An existing directory keeps its content."""

    path: AbsolutePath
    """The path in the image. Missing parent directories are created."""
    mode: FileMode = "0755"
    """The permissions, in quotes."""
    owner: UserName = "root"
    """The owner: a user in the image."""
    group: UserName = "root"
    """The group: a group in the image."""


@dataclass(frozen=True, kw_only=True)
class Link(Options):
    """A symbolic link. It replaces an existing file or link."""

    path: AbsolutePath
    """The path in the image. Missing parent directories are created."""
    to: LinkText
    """The target: an absolute path in the image, or a path relative to the link."""


@dataclass(frozen=True, kw_only=True)
class Files(StageOptions):
    """Writes directories, then files, then symbolic links, each in the order given."""

    type: Literal["files"] = "files"
    directories: tuple[Directory, ...] = ()
    """Directories to create."""
    files: tuple[File, ...] = ()
    """Files to write."""
    links: tuple[Link, ...] = ()
    """Symbolic links to create."""

    def __post_init__(self) -> None:
        # A directory can be copied onto the root directory of the image.
        copied = {("files", i, "path") for i, f in enumerate(self.files) if f.source is not None}
        lost = (
            (place, path, _why_lost(path))
            for place, path in self._paths()
            if path or place not in copied
        )
        nothing = not (self.directories or self.files or self.links)
        refuse(
            idle("files", "directories", "files", "links") if nothing else (),
            ((place, f"path: {path or '/'} {why}") for place, path, why in lost if why),
            repeated("path", self._paths()),
        )

    def _paths(self) -> Iterator[tuple[Place, str]]:
        each: dict[str, Sequence[Directory | File | Link]] = {
            "directories": self.directories, "files": self.files, "links": self.links
        }  # fmt: skip
        for key, items in each.items():
            for number, item in enumerate(items):
                yield (key, number, "path"), item.path.rstrip("/")

    def needs(self) -> Iterator[Need]:
        for number, directory in enumerate(self.directories):
            yield from _owners(directory, "directories", number)
        for number, file in enumerate(self.files):
            yield from _owners(file, "files", number)

    def may_bring(self, need: Need) -> bool:
        # A copied file can be anything; a written file is text. Packages install into /usr (which
        # /bin, /sbin and /lib are parts of), and kernels into /boot.
        if not {path for _, path in self._paths()}.isdisjoint(need.files):
            return True
        places = ("/etc/passwd", "/etc/group", "/usr", "/bin", "/sbin", "/lib", "/boot", "/opt")
        return any(
            file.path in places[:2]
            if file.source is None
            else any(_overlap(file.path, place) for place in places)
            for file in self.files
        )

    def may_write_below(self, directory: str) -> bool:
        """Whether the stage may write something to `directory` or below it."""
        return any(_overlap(path or "/", directory) for _, path in self._paths())

    def run(self, target: Target) -> None:
        for directory in self.directories:
            _refuse(target, directory.path, directory=False)
            owner = _owner(target, directory)
            target.make_directory(directory.path, mode=int(directory.mode, 8), owner=owner)
        for file in self.files:
            _write(target, file, _owner(target, file))
        for link in self.links:
            _refuse(target, link.path, directory=True)
            target.symlink(link.path, link.to)


def _why_lost(path: str) -> str | None:
    """The reason why the image would lose a file at `path` ("" is the root directory)."""
    if not path:
        return "is the whole image; name a path in it"
    top = f"/{path.split('/')[1]}"
    if top in ("/proc", "/sys", "/dev"):
        return f"cannot be written: the kernel fills {top} when the system runs"
    if top in ("/run", "/tmp"):
        return f"would be lost: {top} is empty in the finished image (see tmpfiles.d(5))"
    return None


def _owners(what: File | Directory, *key: str | int) -> Iterator[Need]:
    yield needs.user(what.owner, what.path, *key, "owner")
    yield needs.group(what.group, what.path, *key, "group")


def _write(target: Target, file: File, owner: tuple[int, int]) -> None:
    if file.source is not None and file.source.startswith("tree:"):
        _copy_tree(target, file, owner)
        return
    _refuse(target, file.path, directory=True)
    mode = int(file.mode or "0644", 8)
    if file.source is None:
        target.write(file.path, file.content or "", mode=mode, owner=owner)
        return
    with target.attached(file.source).open("rb") as data:
        target.write_from(data, file.path, mode=mode, owner=owner)


def _copy_tree(target: Target, file: File, owner: tuple[int, int]) -> None:
    """Unpacks a directory of the host, attached as a tar archive, over the existing files."""
    assert file.source is not None
    if file.mode is not None:
        raise StageError(
            f"{file.path}: 'mode' does not apply to a directory, which keeps the modes of its files"
        )
    _refuse(target, file.path, directory=False)
    target.make_directory(file.path, owner=owner)
    with tarfile.open(target.attached(file.source)) as archive:
        for member in archive:
            path = f"{file.path}/{member.name}"
            _refuse(target, path, directory=not member.isdir())
            if member.isdir():
                target.make_directory(path, mode=member.mode, owner=owner)
            elif member.issym():
                target.symlink(path, member.linkname)
            elif data := archive.extractfile(member):
                target.write_from(data, path, mode=member.mode, owner=owner)


def _overlap(path: str, other: str) -> bool:
    """Whether the paths are equal, or one lies in the other."""
    path, other = f"{path.rstrip('/')}/", f"{other}/"
    return path.startswith(other) or other.startswith(path)


def _refuse(target: Target, path: str, *, directory: bool) -> None:
    """Raises StageError when a path is a directory (or, with `directory` false, is none)."""
    place = target.path(path, follow=not directory)
    if place.exists() and not place.is_symlink() and place.is_dir() == directory:
        there = "a directory" if directory else "no directory"
        raise StageError(f"{path} exists in the image and is {there}")


def _owner(target: Target, what: File | Directory) -> tuple[int, int]:
    """The user ID and group ID of the owner. Raises StageError for an unknown name."""
    numbers = []
    for name, database, kind in ((what.owner, "passwd", "user"), (what.group, "group", "group")):
        found = entries(target, database).get(name)
        if found is None and name != "root":
            raise StageError(
                f"{what.path}: there is no {kind} {name} in the image",
                hint="Make it in a users stage, or install its package, before this stage.",
            )
        numbers.append(int(found[2]) if found else 0)
    return numbers[0], numbers[1]

"""Files, directories and links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from particle_agent.accounts import entries
from particle_agent.errors import StageError
from particle_agent.options import AbsolutePath, FileMode, LinkText, Options, UserName
from particle_agent.target import Target


@dataclass(frozen=True, kw_only=True)
class File(Options):
    """A file with the text that the recipe gives; what was there before is replaced."""

    path: AbsolutePath
    """Where it lies in the image; directories above it are made."""
    content: str
    """Its whole text."""
    mode: FileMode = "0644"
    """The permissions, in quotes."""
    owner: UserName = "root"
    """A user of the image."""
    group: UserName = "root"
    """A group of the image."""


@dataclass(frozen=True, kw_only=True)
class Directory(Options):
    """A directory; one that is there keeps its content."""

    path: AbsolutePath
    """Where it lies in the image; directories above it are made."""
    mode: FileMode = "0755"
    """The permissions, in quotes."""
    owner: UserName = "root"
    """A user of the image."""
    group: UserName = "root"
    """A group of the image."""


@dataclass(frozen=True, kw_only=True)
class Link(Options):
    """A symbolic link; a file or link that was there before is replaced."""

    path: AbsolutePath
    """Where it lies in the image; directories above it are made."""
    to: LinkText
    """What it points to: an absolute path of the image, or one relative to the link."""


@dataclass(frozen=True, kw_only=True)
class Files(Options):
    """Writes directories, then files, then symbolic links, each in the order given."""

    type: Literal["files"] = "files"
    directories: tuple[Directory, ...] = ()
    """Directories to make."""
    files: tuple[File, ...] = ()
    """Files to write."""
    links: tuple[Link, ...] = ()
    """Symbolic links to make."""

    def run(self, target: Target) -> None:
        for directory in self.directories:
            _refuse(target, directory.path, directory=False)
            owner = _owner(target, directory)
            target.make_directory(directory.path, mode=int(directory.mode, 8), owner=owner)
        for file in self.files:
            _refuse(target, file.path, directory=True)
            owner = _owner(target, file)
            target.write(file.path, file.content, mode=int(file.mode, 8), owner=owner)
        for link in self.links:
            _refuse(target, link.path, directory=True)
            target.symlink(link.path, link.to)


def _refuse(target: Target, path: str, *, directory: bool) -> None:
    """Raises StageError when a directory (or something else) is where the other is wanted."""
    place = target.path(path, follow=not directory)
    if place.exists() and not place.is_symlink() and place.is_dir() == directory:
        there = "a directory" if directory else "no directory"
        raise StageError(f"{path} is {there} in the image already")


def _owner(target: Target, what: File | Directory) -> tuple[int, int]:
    """The user's and the group's number. Raises StageError when the image has no such name."""
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

"""The files of a repository: of a directory, or of a tar archive that is not unpacked."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from particle_os.errors import UsageError
from particle_os.system import tar_archive
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular

INDEX_SECONDS = 300.0
# Files and directories that are looked at in one search.
NAMES_LIMIT = tar_archive.MEMBERS
CONFIGURATION_LIMIT = 1 << 16
# The files that clients of a repository ask for (ostree.repo(5)).
NAME = re.compile(
    r"config|summary(\.sig)?|(objects|refs|deltas|delta-indexes|extensions)(/[A-Za-z0-9._+=@:-]+)+"
)
MODE = re.compile(rb"^mode=(archive|archive-z2)$", re.MULTILINE)
HINT = "It is NAME.ostree.tar of a build, or its content as a directory."


class RepositoryFiles(Protocol):
    """The files of a repository, by their paths below its top."""

    def open(self, name: str) -> tuple[BinaryIO, int] | None:
        """A new stream with the content of a file, and its size; None when there is none."""
        ...

    def names(self, directory: str) -> list[str]:
        """The paths of the files below a directory, sorted. Raises UsageError for too many."""
        ...


@dataclass(frozen=True)
class FilesOfDirectory:
    """The files of a directory. No link in it is followed."""

    top: Path

    def open(self, name: str) -> tuple[BinaryIO, int] | None:
        if not _is_plain(name):
            return None
        place = self.top / name
        if any(parent.is_symlink() for parent in place.parents if self.top in parent.parents):
            return None
        try:
            file = open_regular(place, follow=False)
        except OSError:
            return None
        return file, os.fstat(file.fileno()).st_size

    def names(self, directory: str) -> list[str]:
        place = self.top
        for part in directory.split("/"):
            place /= part
            if place.is_symlink():
                raise UsageError(
                    f"{place} is a symbolic link; those of a repository are not followed", hint=HINT
                )
        return sorted(str(path.relative_to(self.top)) for path in self._below(place))

    def _below(self, place: Path) -> Iterator[Path]:
        """The files below a directory."""
        deadline = Deadline.after(INDEX_SECONDS, f"reading {place}")
        left, waiting = NAMES_LIMIT, [place]
        while waiting:
            try:
                entries = os.scandir(waiting.pop())
            except (FileNotFoundError, NotADirectoryError):
                continue
            with entries:
                for entry in entries:
                    deadline.remaining()
                    left -= 1
                    if left < 0:
                        raise UsageError(
                            f"{place} has more than {NAMES_LIMIT} files and directories", hint=HINT
                        )
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry))
                    else:
                        yield Path(entry)


@dataclass(frozen=True)
class FilesOfArchive:
    """The files of a plain tar archive, by their places in it."""

    archive: BinaryIO
    places: Mapping[str, tuple[int, int]]

    def open(self, name: str) -> tuple[BinaryIO, int] | None:
        if name not in self.places:
            return None
        start, size = self.places[name]
        return io.BufferedReader(_Part(self.archive.fileno(), start, size)), size

    def names(self, directory: str) -> list[str]:
        return sorted(name for name in self.places if name.startswith(f"{directory}/"))


class _Part(io.RawIOBase):
    """A part of an open file. It has its own position, so several threads can read."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor, self._start, self._left = descriptor, start, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._descriptor, min(len(buffer), self._left), self._start)
        buffer[: len(data)] = data
        self._start += len(data)
        self._left -= len(data)
        return len(data)


@contextmanager
def opened(path: Path) -> Iterator[RepositoryFiles]:
    """The files of the repository in a directory or a tar archive. Raises UsageError."""
    try:
        if path.is_dir():
            found: RepositoryFiles = FilesOfDirectory(path)
            _check(found, path)
            yield found
            return
        with open_regular(path) as archive:
            found = FilesOfArchive(archive, _index(archive, path))
            _check(found, path)
            yield found
    except tarfile.TarError as error:
        raise UsageError(f"{path} cannot be read as a tar archive: {error}", hint=HINT) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=HINT) from error


def read(files: RepositoryFiles, name: str, limit: int) -> bytes | None:
    """The content of a file of at most `limit` bytes; None when there is none, or it is larger."""
    if (found := files.open(name)) is None:
        return None
    stream, size = found
    with stream:
        return stream.read(limit) if size <= limit else None


def is_archive(files: RepositoryFiles) -> bool:
    """Whether a repository has the mode `archive`, with the files as web servers have them."""
    return MODE.search(read(files, "config", CONFIGURATION_LIMIT) or b"") is not None


def _index(archive: BinaryIO, path: Path) -> dict[str, tuple[int, int]]:
    size = os.fstat(archive.fileno()).st_size
    deadline = Deadline.after(INDEX_SECONDS, f"reading {path}")
    found = {}
    for member in tar_archive.Archive(archive, size, deadline):
        name = member.name.removeprefix("./")
        if member.regular and not member.sparse and _is_plain(name):
            found[name] = archive.tell(), member.size
    return found


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return NAME.fullmatch(name) is not None and ".." not in parts and "." not in parts


def _check(files: RepositoryFiles, path: Path) -> None:
    if read(files, "config", CONFIGURATION_LIMIT) is None:
        raise UsageError(f"{path} is no repository of OSTree: it has no file 'config'", hint=HINT)

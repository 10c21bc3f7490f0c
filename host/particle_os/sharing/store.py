"""The places of shared caches, and one of them: a directory, as on NFS or a volume of CI."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from particle_os.system import publication
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import read_regular

ENTRY_LIMIT = 32 << 20


def check_time(deadline: Deadline) -> None:
    """Raises OSError after a deadline."""
    if deadline.is_over:
        why = f"{deadline.what} took longer than {deadline.limit}"
        raise OSError(errno.ETIMEDOUT, why)


class Store(Protocol):
    """Keeps entries by kind and key, and blobs by digest. All methods raise OSError."""

    name: str

    def entry(self, kind: str, key: str) -> bytes | None:
        """The envelope of an entry; None without one."""

    def put_entry(self, kind: str, key: str, envelope: bytes, chunks: Mapping[str, int]) -> None:
        """Replaces the envelope of an entry; a reader sees the old one or the new one.

        `chunks` are the digests and sizes of its blobs, which the store must keep.
        """

    def keep_entry(self, kind: str, key: str) -> None:
        """Notes that an entry is still of use, where the age of a file decides on its removal."""

    def has_blob(self, digest: str, size: int) -> bool:
        """Whether the store has a blob of this name and size, which a writer relies on from now."""

    def blob(self, digest: str, size: int, deadline: Deadline) -> bytes:
        """A blob of `size` bytes; the caller checks its content. A slow registry is cut off."""

    def put_blob(self, digest: str, content: bytes) -> None:
        """Adds a blob."""


class DirectoryStore:
    """A shared cache in a directory, which others may write to."""

    def __init__(self, directory: Path) -> None:
        self.name = f"file://{directory}"
        self._directory = directory

    def entry(self, kind: str, key: str) -> bytes | None:
        try:
            return read_regular(self._entry(kind, key), ENTRY_LIMIT, follow=False)
        except FileNotFoundError:
            return None

    def put_entry(self, kind: str, key: str, envelope: bytes, chunks: Mapping[str, int]) -> None:
        self._put(self._entry(kind, key), envelope)

    def keep_entry(self, kind: str, key: str) -> None:
        self._renew(self._entry(kind, key))

    def has_blob(self, digest: str, size: int) -> bool:
        place = self._blob(digest)
        try:
            status = place.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False
        self._renew(place)
        return True

    def blob(self, digest: str, size: int, deadline: Deadline) -> bytes:
        return read_regular(self._blob(digest), size, follow=False)

    def put_blob(self, digest: str, content: bytes) -> None:
        self._put(self._blob(digest), content)

    def _entry(self, kind: str, key: str) -> Path:
        return self._directory / "entries" / kind / f"{key}.json"

    def _blob(self, digest: str) -> Path:
        return self._directory / "blobs" / "sha256" / digest[:2] / digest

    def _renew(self, place: Path) -> None:
        """Gives a file the time of now, unless another user forbids it."""
        with suppress(PermissionError, FileNotFoundError):
            os.utime(place, follow_symlinks=False)

    def _put(self, place: Path, content: bytes) -> None:
        """Writes a file, which is complete when it has its name."""
        place.parent.mkdir(parents=True, exist_ok=True)
        publication.replace(place, content)

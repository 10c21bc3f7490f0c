"""The places of shared caches: a directory, such as one on NFS or a volume of a CI system."""

from __future__ import annotations

import os
import secrets
import shutil
import urllib.parse
from pathlib import Path
from typing import Protocol

from particle_os.errors import UsageError
from particle_os.system.regular_file import open_regular, read_regular

ENTRY_LIMIT = 32 << 20


class Store(Protocol):
    """Keeps entries by kind and key, and blobs by digest. All methods raise OSError."""

    name: str

    def entry(self, kind: str, key: str) -> bytes | None:
        """The envelope of an entry; None without one."""

    def put_entry(self, kind: str, key: str, envelope: bytes) -> None:
        """Replaces the envelope of an entry; a reader sees the old one or the new one."""

    def has_blob(self, digest: str) -> bool:
        """Whether the store has a blob of this name."""

    def blob(self, digest: str, limit: int) -> bytes:
        """A blob of at most `limit` bytes; its content is not checked."""

    def put_blob(self, digest: str, source: Path) -> None:
        """Adds a blob with the content of a file."""


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

    def put_entry(self, kind: str, key: str, envelope: bytes) -> None:
        place = self._entry(kind, key)
        made = self._made(place)
        try:
            with made.open("xb") as file:
                file.write(envelope)
                file.flush()
                os.fsync(file.fileno())
            made.rename(place)
        finally:
            made.unlink(missing_ok=True)

    def has_blob(self, digest: str) -> bool:
        return self._blob(digest).exists()

    def blob(self, digest: str, limit: int) -> bytes:
        return read_regular(self._blob(digest), limit, follow=False)

    def put_blob(self, digest: str, source: Path) -> None:
        place = self._blob(digest)
        made = self._made(place)
        try:
            with open_regular(source) as data, made.open("xb") as file:
                shutil.copyfileobj(data, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            made.rename(place)
        finally:
            made.unlink(missing_ok=True)

    def _entry(self, kind: str, key: str) -> Path:
        return self._directory / "entries" / kind / f"{key}.json"

    def _blob(self, digest: str) -> Path:
        return self._directory / "blobs" / "sha256" / digest[:2] / digest

    def _made(self, place: Path) -> Path:
        place.parent.mkdir(parents=True, exist_ok=True)
        return place.with_name(f".{place.name[:16]}-{secrets.token_hex(6)}")


def store_of(reference: str) -> Store:
    """The store that a reference such as file:///srv/cache names. Raises UsageError."""
    parts = urllib.parse.urlsplit(reference)
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise UsageError(
            f"'{reference}' is no shared cache", hint="Name a directory: file:///srv/cache."
        )
    return DirectoryStore(Path(urllib.parse.unquote(parts.path)))

"""Measures a shared cache in Debian's docker-registry on loopback: its speed, and what travels.

The entry is like a checkpoint: a file of 300 MiB with the programs and libraries of this host.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from particle_os.sharing.entry import SharedEntry
from particle_os.sharing.registry import RegistryStore
from particle_os.sharing.shared_cache import SharedCache
from particle_os.sharing.signing import PublicKeys, Signer

from ..registry import debian_registry

SIZE, BLOCK = 300 << 20, 1 << 20
KEY, NAME = "ab" * 20, "disk.qcow2"


@dataclass(frozen=True)
class SharedCacheFigures:
    """Seconds, and bytes that went to the registry. `hash` reads and hashes the same file."""

    give: float
    take: float
    hash: float
    first: int
    again: int
    changed: int


def measure(place: Path) -> SharedCacheFigures | None:
    """Gives and takes an entry in a directory; None without a registry."""
    if shutil.which("docker-registry") is None:
        return None
    file = place / NAME
    _fill(file)
    secret, public = _pair(place)
    with debian_registry(place) as host:
        store = RegistryStore(host, "team/cache")
        cache = SharedCache([store], PublicKeys.read([public]), store, Signer(secret))
        give, first = _given(cache, store, file)
        took = place / "taken"
        took.mkdir()
        began = time.monotonic()
        found = cache.entry("checkpoint", KEY, print)
        assert found is not None
        found.fetch(took)
        take = time.monotonic() - began
        began = time.monotonic()
        assert _sha256(file) == _sha256(took / NAME)
        both = time.monotonic() - began
        _, again = _given(cache, store, file)
        _change(file)
        _, changed = _given(cache, store, file)
    return SharedCacheFigures(give, take, both / 2, first, again, changed)


def _given(cache: SharedCache, store: RegistryStore, file: Path) -> tuple[float, int]:
    before, began = store.sent, time.monotonic()
    entry = SharedEntry(kind="checkpoint", key=KEY, created=time.time())
    cache.keep(entry, {NAME: file})
    return time.monotonic() - began, store.sent - before


def _change(file: Path) -> None:
    """Changes a MiB in the middle, as a stage that writes a file, and what describes the disk."""
    with file.open("r+b") as disk:
        for offset, size in ((0, 1 << 16), (SIZE // 2, 1 << 20)):
            disk.seek(offset)
            disk.write(os.urandom(size))


def _fill(file: Path) -> None:
    with file.open("wb") as made:
        for data in _content():
            made.write(data[: SIZE - made.tell()])
            if made.tell() == SIZE:
                return


def _content() -> Iterator[bytes]:
    for directory in (Path("/usr/bin"), Path("/usr/lib"), Path("/usr/share")):
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path.read_bytes()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pair(place: Path) -> tuple[Path, Path]:
    secret, public = place / "cache.key", place / "cache.pub"
    argv = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(secret)]
    subprocess.run(argv, check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", secret, "-pubout", "-out", public], check=True)
    return secret, public

"""The entries of the user's cache: their sizes and ages, their removal, and their integrity."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from particle_os.base.suite import read_digest
from particle_os.jobs import checkpoints
from particle_os.sandbox import helper
from particle_os.shortcuts import saved_memory
from particle_os.system.checksum import file_sha256
from particle_os.system.workspace import LOCK, allocated_bytes, remove, workspace

LIMIT_BYTES = 20 << 30
EntryKind = Literal[
    "helper", "state", "base", "image", "checkpoint", "package", "download", "indexes"
]


@dataclass(frozen=True)
class CacheEntry:
    """One entry of the cache; `size` in allocated bytes, `used` in seconds since 1970."""

    kind: EntryKind
    name: str
    size: int
    used: float
    paths: tuple[Path, ...]
    label: str = ""
    recipe: str = ""

    def age(self) -> float:
        """Seconds since the entry was last used."""
        return max(0.0, time.time() - self.used)


def entries(cache: Path) -> list[CacheEntry]:
    """All entries of the cache, the most recently used first."""
    return sorted(_entries(cache), key=lambda entry: entry.used, reverse=True)


def _entries(cache: Path) -> Iterator[CacheEntry]:
    for place in _directories(cache / "helpers"):
        yield _entry("helper", place.name, place, place)
    for state in (cache / "warm").glob("*.state"):
        yield _entry("state", state.stem, state, state)
    for digest in (cache / "bases").glob("*.sha256"):
        tarball = digest.with_suffix(".tar.zst")
        yield _entry("base", digest.stem, digest, tarball, digest)
    for blob in (cache / "images" / "sha256").glob("*"):
        yield _entry("image", blob.name, blob, blob)
    for place in _directories(cache / "checkpoints"):
        found = checkpoints.read(place)
        label, recipe = (found.meta.label, found.meta.recipe) if found else ("damaged", "")
        yield replace(_entry("checkpoint", place.name, place, place), label=label, recipe=recipe)
    for deb in (cache / "packages").glob("*.deb"):
        yield _entry("package", deb.stem, deb, deb)
    for file in (cache / "downloads").glob("[0-9a-f]*"):
        if file.suffix != ".lock":
            yield _entry("download", file.name, file, file)
    for place in _directories(cache / "apt"):
        yield _entry("indexes", place.name, place.with_suffix(".lock"), place)


def _directories(parent: Path) -> list[Path]:
    return [place for place in parent.glob("*") if place.is_dir()]


def _entry(kind: EntryKind, name: str, dated: Path, *paths: Path) -> CacheEntry:
    size = 0
    used = 0.0
    # Other builds move and remove files meanwhile.
    with suppress(OSError):
        used = dated.stat().st_mtime
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else [path]:
            with suppress(OSError):
                size += allocated_bytes(file)
    return CacheEntry(kind, name, size, used, paths)


def prune(
    cache: Path, *, limit: int, max_age: float | None = None, dry_run: bool = False
) -> list[CacheEntry]:
    """Removes old entries, then the least recently used; returns the removed entries.

    Old entries were not used for `max_age` seconds. Others are removed until the rest takes at most
    `limit` bytes. Running builds lose nothing: a checkpoint is locked by its build, and the other
    kinds of entries stay while any other build runs. With `dry_run`, no entry is removed.
    """
    removed = []
    # A dry run works on a file system that cannot be written to.
    with nullcontext() if dry_run else workspace() as work:
        own = None if work is None else work.path
        busy = _others_run(cache, own)
        found = entries(cache)
        total = sum(entry.size for entry in found)
        for entry in reversed(found):
            old = max_age is not None and entry.age() > max_age
            if not old and total <= limit:
                continue
            gone = _removable(entry, busy) if own is None else _remove(entry, own, busy=busy)
            if gone:
                removed.append(entry)
                total -= entry.size
    return removed


def _others_run(cache: Path, own: Path | None) -> bool:
    for lock in (cache / "work").glob(f"*/{LOCK}"):
        if lock.parent == own:
            continue
        try:
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            continue
    return False


def _removable(entry: CacheEntry, busy: bool) -> bool:
    return not (checkpoints.in_use(entry.paths[0]) if entry.kind == "checkpoint" else busy)


def _remove(entry: CacheEntry, work: Path, *, busy: bool) -> bool:
    if entry.kind == "checkpoint" and not entry.paths[0].is_symlink():
        into = Path(tempfile.mkdtemp(dir=work)) / entry.name
        return checkpoints.evict(entry.paths[0], into=into)
    if busy:
        return False
    # The last path is the completion marker: remove it first.
    for path in reversed(entry.paths):
        with suppress(OSError):
            remove(path)
    return not any(map(os.path.lexists, entry.paths))


def damaged(cache: Path) -> list[CacheEntry]:
    """The entries whose content has changed since they were stored."""
    return [entry for entry in entries(cache) if not _is_intact(entry)]


def _is_intact(entry: CacheEntry) -> bool:
    try:
        return _has_its_content(entry)
    except OSError:
        # An entry that another build has removed meanwhile is not damaged.
        return not entry.paths[0].exists()


def _has_its_content(entry: CacheEntry) -> bool:
    path = entry.paths[0]
    if entry.kind == "checkpoint":
        found = checkpoints.read(path)
        return found is not None and checkpoints.intact(found)
    if entry.kind == "base":
        return path.exists() and read_digest(entry.paths[1]) == f"sha256:{file_sha256(path)}"
    if entry.kind in ("package", "download", "image"):
        return file_sha256(path) == entry.name
    if entry.kind == "state":
        return saved_memory.intact(path)
    if entry.kind == "helper":
        return helper.intact(path)
    # apt itself verifies its indexes whenever it reads them.
    return True

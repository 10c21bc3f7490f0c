"""The finished disk: taken over from the guest, verified, converted, published."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from particle_agent.checksum import tree_sha256
from particle_agent.wire import DiskWritten

from particle_os import process
from particle_os.deadline import Deadline
from particle_os.errors import InfrastructureError
from particle_os.interrupt import held_back

SUMS = "SHA256SUMS"
ZEROES = bytes(1 << 20)


def receive(path: Path, told: DiskWritten) -> None:
    """Cuts the guest's disk to the size it told, and checks its content.

    The guest wrote into this sparse file, so nothing is copied. Raises InfrastructureError when
    the file is not what the guest says it wrote.
    """
    if not 0 < told.size <= path.stat().st_size:
        raise InfrastructureError(f"the guest says it wrote {told.size} bytes; there are fewer")
    os.truncate(path, told.size)
    if tree_sha256(path, told.size) != told.tree_sha256:
        raise InfrastructureError(
            "the disk that arrived is not the one that the guest wrote: the checksums differ"
        )


def checksums(path: Path) -> tuple[str, str]:
    """The SHA-256 of a file, and its checksum by `tree_sha256`, which is faster to compute."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        sha256 = pool.submit(sparse_sha256, path)
        tree = tree_sha256(path, path.stat().st_size)
        return sha256.result(), tree


def sparse_sha256(path: Path) -> str:
    """The SHA-256 of a file; its holes are not read."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size, position = os.fstat(file.fileno()).st_size, 0
        while position < size:
            try:
                data = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:
                data = size  # Nothing but a hole follows.
            for start in range(position, data, len(ZEROES)):
                digest.update(ZEROES[: min(len(ZEROES), data - start)])
            position = data
            if position >= size:
                break
            end = os.lseek(file.fileno(), position, os.SEEK_HOLE)
            os.lseek(file.fileno(), position, os.SEEK_SET)
            while position < end:
                chunk = file.read(min(len(ZEROES), end - position))
                digest.update(chunk)
                position += len(chunk)
    return digest.hexdigest()


def convert(raw: Path, target: Path, deadline: Deadline) -> None:
    """Makes a qcow2 image of a raw disk; the raw disk is opened as raw, whatever it contains."""
    process.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "lazy_refcounts=off"]
        + ["-W", "-m", "4", str(raw), str(target)],
        deadline=deadline,
        what="converting to qcow2",
    )


def publish(files: Iterable[Path], directory: Path, sums: Mapping[str, str]) -> None:
    """Moves finished files into `directory`, on the same file system, one rename each.

    Every file's content is on the disk before any name appears; the names are before this
    returns. A reader sees the old file or the new one. `sums` (name to SHA-256) go into
    SHA256SUMS, whose lines about other images stay. Two publishers take turns.
    """
    files = list(files)
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with held_back():
            for path in files:
                path.replace(directory / path.name)
            _write_sums(directory / SUMS, files[0].parent / SUMS, sums)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_sums(place: Path, temporary: Path, sums: Mapping[str, str]) -> None:
    """SHA256SUMS as sha256sum(1) writes and checks it."""
    lines = {}
    if place.exists():
        for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
            digest, _, name = line.partition("  ")
            if name and (place.parent / name).exists():
                lines[name] = digest
    lines.update(sums)
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{digest}  {name}\n" for name, digest in sorted(lines.items()))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(place)

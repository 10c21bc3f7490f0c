"""Checksums of disks that are fast on sparse files and use all processors.

A tree checksum is the checksum of the concatenated checksums of the disk's chunks of `CHUNK` bytes;
the last chunk may be shorter. SHA-256 identifies a file. CRC-32 (as in zlib) detects that a file
has changed. A plain SHA-256 of the whole file cannot use several processors.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import mmap
import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20
HashFunction = Callable[[bytes], bytes]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a whole file, as hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


@functools.cache
def _zeros(length: int) -> bytes:
    return bytes(length)


@functools.cache
def _digest_of_zeros(digest: HashFunction, length: int) -> bytes:
    return digest(_zeros(length))


def _is_hole(descriptor: int, offset: int, length: int) -> bool:
    """Whether the file has a hole at these bytes."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO and offset + length <= os.fstat(descriptor).st_size


def _chunk(descriptor: int, buffer: mmap.mmap, offset: int, length: int) -> bytes:
    if _is_hole(descriptor, offset, length):
        return _zeros(length)
    with memoryview(buffer) as view:
        done = 0
        while done < length:
            with view[done:length] as rest:
                read = os.preadv(descriptor, [rest], offset + done)
            if read == 0:
                raise EOFError(f"the disk ends at byte {offset + done}")
            done += read
    return buffer[:length]


def _digest_of(digest: HashFunction, data: bytes) -> bytes:
    if data == _zeros(len(data)):
        return _digest_of_zeros(digest, len(data))
    return digest(data)


def tree_sha256(path: str | os.PathLike[str], size: int) -> str:
    """The tree checksum by SHA-256 of the first `size` bytes of a file, as hexadecimal digits.

    Raises EOFError when there are fewer bytes.
    """
    return _tree(path, size, _sha256)


def tree_crc32(path: str | os.PathLike[str], size: int) -> str:
    """The tree checksum by CRC-32 of the first `size` bytes of a file, as hexadecimal digits.

    Raises EOFError when there are fewer bytes.
    """
    return _tree(path, size, _crc32)


def _tree(path: str | os.PathLike[str], size: int, digest: HashFunction) -> str:
    """Computes a tree checksum in threads: hashlib and zlib release the interpreter lock."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    # Each thread has its own buffer.
    local = threading.local()

    def chunk(offset: int) -> bytes:
        length = min(CHUNK, size - offset)
        if not hasattr(local, "buffer"):
            local.buffer = mmap.mmap(-1, CHUNK)
        return _digest_of(digest, _chunk(descriptor, local.buffer, offset, length))

    try:
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            return digest(b"".join(pool.map(chunk, range(0, size, CHUNK)))).hex()
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Checksums:
    """All checksums of a file, as hexadecimal digits; `sha256` is the plain SHA-256."""

    sha256: str
    tree_sha256: str
    tree_crc32: str


def of_one_reading(path: str | os.PathLike[str], size: int) -> Checksums:
    """All checksums of the first `size` bytes of a file, from one pass over the file.

    All checksums are of the same bytes, even if the file changes meanwhile. The pass uses one
    processor and does not read holes. Raises EOFError when there are fewer bytes.
    """
    whole, digests, sums = hashlib.sha256(), hashlib.sha256(), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, CHUNK) as buffer:
            for offset in range(0, size, CHUNK):
                data = _chunk(descriptor, buffer, offset, min(CHUNK, size - offset))
                whole.update(data)
                digests.update(_digest_of(_sha256, data))
                sums = zlib.crc32(_digest_of(_crc32, data), sums)
    finally:
        os.close(descriptor)
    return Checksums(whole.hexdigest(), digests.hexdigest(), f"{sums:08x}")

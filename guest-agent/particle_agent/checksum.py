"""Checksums of disks that both ends compute, fast on sparse ones and on several processors.

A checksum of the checksums of the disk's chunks of `CHUNK` bytes (the last one may be shorter), one
after the other: SHA-256 to know a file again, and CRC-32 (as in zlib) against accidents on the way
out of a guest, where it takes a sixth of the time. A plain SHA-256 is one serial chain.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import mmap
import os
import stat
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

CHUNK = 1 << 20


Digest = Callable[[bytes], bytes]


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


@functools.cache
def _zeros(length: int) -> bytes:
    return bytes(length)


@functools.cache
def _digest_of_zeros(digest: Digest, length: int) -> bytes:
    return digest(_zeros(length))


def _is_hole(descriptor: int, offset: int, length: int) -> bool:
    """Whether nothing was ever written there; a disk, unlike a file, does not know."""
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


def _digest_of(digest: Digest, data: bytes) -> bytes:
    if data == _zeros(len(data)):
        return _digest_of_zeros(digest, len(data))
    return digest(data)


def _open(path: str | os.PathLike[str]) -> int:
    """A disk is read past the kernel's memory of it, which is twice as fast when it is emulated."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)


def tree_sha256(path: str | os.PathLike[str], size: int) -> str:
    """The checksum by SHA-256 of the first `size` bytes of a file, as hexadecimal digits.

    Raises EOFError when there are fewer bytes.
    """
    return _tree(path, size, (), _sha256)


def tree_crc32(
    path: str | os.PathLike[str], size: int, unused: Sequence[tuple[int, int]] = ()
) -> str:
    """The checksum by CRC-32 of the first `size` bytes of a file or device, as hexadecimal digits.

    The ranges `unused` (first byte, byte after the last) are known to be zero, and are not read. A
    device's `size` is a multiple of its block size. Raises EOFError when there are fewer bytes.
    """
    return _tree(path, size, unused, _crc32)


def _tree(
    path: str | os.PathLike[str], size: int, unused: Sequence[tuple[int, int]], digest: Digest
) -> str:
    """hashlib and zlib let other threads run while they compute: every processor takes part."""
    descriptor = _open(path)
    # Whole pages, as a disk wants them; one for each thread.
    local = threading.local()

    def chunk(offset: int) -> bytes:
        length = min(CHUNK, size - offset)
        if any(start <= offset and offset + length <= end for start, end in unused):
            return _digest_of_zeros(digest, length)
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
    """All checksums of a file, as hexadecimal digits; `sha256` is the plain one."""

    sha256: str
    tree_sha256: str
    tree_crc32: str


def of_one_reading(path: str | os.PathLike[str], size: int) -> Checksums:
    """All checksums of the first `size` bytes of a file: of the same bytes, whoever writes them.

    On one processor; holes are not read. Raises EOFError when there are fewer bytes.
    """
    whole, digests, sums = hashlib.sha256(), hashlib.sha256(), 0
    descriptor = _open(path)
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

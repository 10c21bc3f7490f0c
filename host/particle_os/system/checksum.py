"""Checksums of disks that are fast on sparse files and use all processors.

A tree checksum is the SHA-256 of the SHA-256 digests of all chunks of `CHUNK` bytes of a disk;
the last chunk may be shorter. A plain SHA-256 of the whole file cannot use several processors.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import mmap
import os
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from particle_os.system import process
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular

CHUNK = 1 << 20
# Chunks that wait for a thread at once, and chunks of a hole that are counted at once.
WINDOW, HOLE_WINDOW = 512, 1 << 16
READ_SECONDS = 3600.0


def file_sha256(path: Path) -> str:
    """The SHA-256 of a whole file, as hexadecimal digits.

    Raises OSError, and DeadlineExceeded for a file that cannot be read in an hour, such as one of
    terabytes of zeros.
    """
    deadline = Deadline.after(READ_SECONDS, f"reading {path}")
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while data := file.read(CHUNK):
            digest.update(data)
            deadline.remaining()
    return digest.hexdigest()


def unpacked_sha256(argv: Sequence[str | Path], archive: Path, deadline: Deadline) -> str:
    """The SHA-256 of what `argv`, which unpacks `archive`, writes to its standard output.

    A program that could not read the archive has written another content, so its messages are of
    no use.
    """
    digest = hashlib.sha256()
    within = Confinement(reads=(archive,))
    with process.started(argv, within=within, stderr=subprocess.DEVNULL) as reader:
        output = process.output(reader, deadline)
        while chunk := output.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@functools.cache
def _zeros(length: int) -> bytes:
    return bytes(length)


@functools.cache
def _digest_of_zeros(length: int) -> bytes:
    return _sha256(_zeros(length))


def _is_hole(descriptor: int, offset: int, length: int) -> bool:
    """Whether the file has a hole at these bytes."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO and offset + length <= os.fstat(descriptor).st_size


def _chunks_of_hole(descriptor: int, offset: int, size: int) -> int:
    """The number of chunks from `offset` on that are a hole of the file, up to HOLE_WINDOW."""
    try:
        end = os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            return 0
        end = os.fstat(descriptor).st_size
    # The last chunk of the disk may be shorter.
    length = size - offset + CHUNK - 1 if end >= size else end - offset
    return min(max(0, length) // CHUNK, HOLE_WINDOW)


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


def _digest_of(data: bytes) -> bytes:
    if data == _zeros(len(data)):
        return _digest_of_zeros(len(data))
    return _sha256(data)


def tree_sha256(path: Path, size: int, deadline: Deadline | None = None) -> str:
    """The tree checksum of the first `size` bytes of a file, as hexadecimal digits.

    Threads compute it: hashlib releases the interpreter lock. It costs little for a hole, and a
    disk of any size needs little memory. Raises EOFError when there are fewer bytes, OSError when
    the file is a link or no regular file, and DeadlineExceeded, by default after an hour.
    """
    deadline = deadline or Deadline.after(READ_SECONDS, f"reading {path}")
    file = open_regular(path, follow=False)
    descriptor = file.fileno()
    # Each thread has its own buffer.
    local = threading.local()

    def chunk(offset: int) -> bytes:
        length = min(CHUNK, size - offset)
        if not hasattr(local, "buffer"):
            local.buffer = mmap.mmap(-1, CHUNK)
        return _digest_of(_chunk(descriptor, local.buffer, offset, length))

    whole, offset = hashlib.sha256(), 0
    with file, ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        while offset < size:
            deadline.remaining()
            if count := _chunks_of_hole(descriptor, offset, size):
                end = min(size, offset + count * CHUNK)
                full, rest = divmod(end - offset, CHUNK)
                whole.update(_digest_of_zeros(CHUNK) * full)
                if rest:
                    whole.update(_digest_of_zeros(rest))
            else:
                end = min(size, offset + WINDOW * CHUNK)
                whole.update(b"".join(pool.map(chunk, range(offset, end, CHUNK))))
            offset = end
    return whole.hexdigest()


@dataclass(frozen=True)
class Checksums:
    """All checksums of a file, as hexadecimal digits; `sha256` is the plain SHA-256."""

    sha256: str
    tree_sha256: str


def of_one_reading(path: Path, size: int, deadline: Deadline | None = None) -> Checksums:
    """All checksums of the first `size` bytes of a file, from one pass over the file.

    All checksums are of the same bytes, even if the file changes meanwhile. The pass uses one
    processor and does not read holes, but computes the plain SHA-256 of their zeros. Raises
    EOFError when there are fewer bytes, and DeadlineExceeded, by default after an hour.
    """
    deadline = deadline or Deadline.after(READ_SECONDS, f"reading {path}")
    whole, digests = hashlib.sha256(), hashlib.sha256()
    with open_regular(path, follow=False) as file, mmap.mmap(-1, CHUNK) as buffer:
        for offset in range(0, size, CHUNK):
            deadline.remaining()
            data = _chunk(file.fileno(), buffer, offset, min(CHUNK, size - offset))
            whole.update(data)
            digests.update(_digest_of(data))
    return Checksums(whole.hexdigest(), digests.hexdigest())


def copied(path: Path, copy: Path, size: int | None, deadline: Deadline) -> str | None:
    """Copies a regular file of `size` bytes, and returns the SHA-256 of the copy.

    None is any size; a file of another size is not copied, and gives None. Raises OSError, and
    DeadlineExceeded.
    """
    digest = hashlib.sha256()
    with open_regular(path) as source, copy.open("xb") as sink:
        left = os.fstat(source.fileno()).st_size
        if size not in (None, left):
            return None
        while data := source.read(min(left, CHUNK)):
            deadline.remaining()
            digest.update(data)
            sink.write(data)
            left -= len(data)
    return digest.hexdigest()

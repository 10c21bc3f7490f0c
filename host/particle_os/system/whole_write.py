"""Writes without a buffer that write everything, or raise.

The system call may write less than it is asked to, above all when a disk becomes full.
"""

from __future__ import annotations

import errno
import os


def write_whole(
    descriptor: int,
    data: bytes | memoryview,
    place: str | os.PathLike[str],
    at: int | None = None,
) -> None:
    """Writes all of `data` at the position of a file, or at the offset `at`.

    `place` names the file in the OSError.
    """
    rest = memoryview(data)
    try:
        while rest:
            if at is None:
                count = _some(os.write(descriptor, rest))
            else:
                count = _some(os.pwrite(descriptor, rest, at))
                at += count
            rest = rest[count:]
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(place)) from error


def _some(count: int) -> int:
    if count < 1:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return count

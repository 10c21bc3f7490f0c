"""Opens files that others may have put in place: a regular file of limited size, or an error.

Opening a FIFO would wait for its writer, a device can have effects or no end, and a planted link
leads anywhere. The errors are OSError, with a `strerror` for the user.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

# The kernel's answers to an attempt to open a socket, a device without driver, or a link.
_IRREGULAR = {errno.ENXIO: "not a regular file", errno.ENODEV: "not a regular file"}
_LINK = {errno.ELOOP: "a symbolic link"}


def open_regular(path: Path, *, follow: bool = True) -> BufferedReader:
    """Opens a regular file for reading, without waiting for a peer.

    Set `follow` to False where others than the user may have planted a link in place of `path`
    itself. Raises OSError when there is no such file, or something else under its name.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except OSError as error:
        texts = _IRREGULAR if follow else _IRREGULAR | _LINK
        if error.errno in texts:
            raise OSError(error.errno, texts[error.errno], str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int, *, follow: bool = True) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises OSError, as `open_regular`.

    The limit holds for what is read, whatever size the file claims to have.
    """
    with open_regular(path, follow=follow) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return data


def write_whole(
    descriptor: int,
    data: bytes | memoryview,
    place: str | os.PathLike[str],
    at: int | None = None,
) -> None:
    """Writes all of `data` at the position of a file, or at the offset `at`.

    The system call may write less than it is asked to, above all when a disk becomes full. `place`
    names the file in the OSError.
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

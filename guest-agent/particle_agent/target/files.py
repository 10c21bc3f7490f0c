"""Files of the target, whose places hold whatever the base or a stage has put there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from particle_agent.errors import StageError

# The largest files that the agent reads into memory are the database of dpkg and apt's indexes.
READ_LIMIT = 128 << 20
HINT = "Remove it in a run stage before this one, or use another base."
# The errors of a place that cannot take a file. Others, such as ENOSPC, have other causes.
TAKEN = {
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EACCES, errno.EPERM,
    errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EBUSY,
}  # fmt: skip


def open_regular(place: Path, path: str) -> IO[bytes]:
    """Opens the regular file at `place` for reading, without waiting for a FIFO.

    Raises StageError, which names it as `path`, for anything else and for a missing file.
    """
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        message = f"{path} of the image cannot be read: {os.strerror(error.errno or 0)}"
        raise StageError(message) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StageError(f"{path} of the image is no regular file", hint=HINT)
    return os.fdopen(descriptor, "rb")


def read_regular(place: Path, path: str, limit: int = READ_LIMIT) -> bytes:
    """The content of a regular file. Raises StageError as `open_regular`, and above the limit."""
    with open_regular(place, path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise StageError(f"{path} of the image has more than {limit >> 20} MiB", hint=HINT)
    return data


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Raises StageError when the place of `path` cannot take what the context writes there."""
    try:
        yield
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        why = os.strerror(error.errno)
        raise StageError(f"{path} of the image cannot be written: {why}", hint=HINT) from error

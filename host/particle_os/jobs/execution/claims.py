"""Claims on keys: while one process makes what a key names, others can wait for it.

A claim is a lock on one byte of a file that all processes share (F_OFD_SETLK, fcntl(2)). The byte's
offset follows from the key. The kernel drops a claim when its process ends, and no file is left of
it. A claim only saves work: what two processes make under one key is equally good.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from pathlib import Path

# struct flock on 64-bit Linux: type, whence, start, length, process.
_FLOCK = "hhqqi"


class Claims:
    """The claims of one process. Leaving the context drops all of them."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(
            file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._descriptor)

    def take(self, key: str) -> bool:
        """Claims a key; returns False when another process has claimed it.

        Claims everything on a file system without such locks: then each process works for itself.
        """
        try:
            self._lock(fcntl.F_WRLCK, key)
        except OSError as error:
            return not isinstance(error, BlockingIOError | PermissionError)
        return True

    def drop(self, key: str) -> None:
        """Drops the claim on a key."""
        try:
            self._lock(fcntl.F_UNLCK, key)
        except OSError:
            pass  # The file system has no locks.

    def _lock(self, kind: int, key: str) -> None:
        digest = hashlib.sha256(key.encode()).digest()
        start = int.from_bytes(digest[:7], "big")
        lock = struct.pack(_FLOCK, kind, os.SEEK_SET, start, 1, 0)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, lock)

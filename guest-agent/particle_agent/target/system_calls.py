"""System calls without a function in Python 3.11, through the C library.

A program such as mount(8) would work, too. But starting it takes some hundredths of a second in an
emulated VM, and the system call takes none.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# sys/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME = 0x400
MS_BIND, MS_REC = 0x1000, 0x4000
MS_SLAVE, MS_SHARED = 1 << 19, 1 << 20
MNT_DETACH = 2
CLONE_NEWNET = 0x40000000  # linux/sched.h

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | None) -> int:
    """Calls a function of the C library. Raises OSError when it returns less than 0."""
    converted = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    result: int = getattr(_libc, name)(*converted)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def mount(source: str | Path, place: Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mounts a file system of this kind, or with MS_BIND a directory, at `place` (mount(2))."""
    call("mount", os.fsencode(source), os.fsencode(place), kind.encode(), flags, data.encode())


@contextmanager
def mounted(
    source: str | Path, place: Path, kind: str = "", flags: int = 0, data: str = ""
) -> Iterator[None]:
    """Mounts as `mount` does, and unmounts at the end of the context. Open files stay open.

    It is no error if a program in the context has unmounted it.
    """
    mount(source, place, kind, flags, data)
    try:
        yield
    finally:
        with suppress(OSError):
            call("umount2", os.fsencode(place), MNT_DETACH)

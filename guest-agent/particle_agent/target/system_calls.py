"""System calls that Python 3.11 has no function for, by way of the C library.

A program such as mount(8) would do; but to start one takes some hundredths of a second in an
emulated VM, and the system call nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# sys/mount.h
MS_NOATIME = 0x400
MS_BIND = 0x1000
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | None) -> int:
    """Calls a function of the C library; raises OSError when it returns less than 0."""
    converted = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    result: int = getattr(_libc, name)(*converted)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def mount(source: str | Path, place: Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2): a file system of this kind, or with MS_BIND a directory, at `place`."""
    call("mount", os.fsencode(source), os.fsencode(place), kind.encode(), flags, data.encode())


@contextmanager
def mounted(
    source: str | Path, place: Path, kind: str = "", flags: int = 0, data: str = ""
) -> Iterator[None]:
    """The same for as long as the context lasts, unless somebody unmounts it before.

    Files that are still open stay open.
    """
    mount(source, place, kind, flags, data)
    try:
        yield
    finally:
        with suppress(OSError):
            call("umount2", os.fsencode(place), MNT_DETACH)

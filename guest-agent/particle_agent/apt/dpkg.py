"""The paths of dpkg's database, and the reading of package files (deb(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from particle_agent.errors import EnvironmentFailed

DPKG = "/var/lib/dpkg"
STATUS = f"{DPKG}/status"
CHUNK = 1 << 20


def find_member(deb: IO[bytes], name: bytes) -> int:
    """Seeks to the content of a member of a package, which is an ar archive. Returns its bytes.

    Raises EnvironmentFailed when there is no member with exactly this name.
    """
    deb.seek(8)
    while len(header := deb.read(60)) == 60:
        digits = header[48:58].rstrip()
        # A negative size would lead back to this header for ever.
        if not digits.isdigit():
            raise EnvironmentFailed(f"{deb.name} is malformed: a member has no size")
        size = int(digits)
        if header[:16].rstrip() == name:
            return size
        deb.seek(size + size % 2, os.SEEK_CUR)
    raise EnvironmentFailed(f"{deb.name} contains no uncompressed {name.decode()}")


def chunks(source: IO[bytes], size: int) -> Iterator[bytes]:
    """The next `size` bytes, in chunks. Raises EnvironmentFailed when the file ends earlier."""
    while size:
        chunk = source.read(min(CHUNK, size))
        if not chunk:
            raise EnvironmentFailed(f"{source.name} ends too soon")
        size -= len(chunk)
        yield chunk

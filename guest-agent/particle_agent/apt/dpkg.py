"""Where dpkg keeps what, and how a package file is read; deb(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from particle_agent.errors import EnvironmentFailed

DPKG = "/var/lib/dpkg"
STATUS = f"{DPKG}/status"
CHUNK = 1 << 20


def find_member(deb: IO[bytes], name: bytes) -> int:
    """Goes to a member of a package, an ar archive; returns its size in bytes."""
    deb.seek(8)
    while len(header := deb.read(60)) == 60:
        size = int(header[48:58])
        if header[:16].rstrip() == name:
            return size
        deb.seek(size + size % 2, os.SEEK_CUR)
    raise EnvironmentFailed(f"{deb.name} holds no {name.decode()}, decompressed")


def chunks(source: IO[bytes], size: int) -> Iterator[bytes]:
    """The next `size` bytes, some at a time."""
    while size:
        chunk = source.read(min(CHUNK, size))
        if not chunk:
            raise EnvironmentFailed(f"{source.name} ends too soon")
        size -= len(chunk)
        yield chunk

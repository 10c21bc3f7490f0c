"""Archives that the kernel takes as an initramfs: cpio "newc" (kernel: buffer-format.rst)."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path


def append(path: Path, entries: Iterable[tuple[str, int, bytes]]) -> None:
    """Adds an archive to a file; the kernel unpacks all that are in it, one after the other.

    Each entry is a name, a mode with its file type, and the content; directories come before what
    is in them. The same entries give the same bytes.
    """
    with path.open("ab") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
        for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
            encoded = name.encode() + b"\0"
            fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
            header = b"070701" + b"".join(b"%08x" % value for value in fields)
            file.write(header + encoded)
            file.write(b"\0" * (-(len(header) + len(encoded)) % 4))
            file.write(data + b"\0" * (-len(data) % 4))

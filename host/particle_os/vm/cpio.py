"""Archives for an initramfs: cpio "newc" (the kernel's buffer-format.rst)."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path


def append(path: Path, entries: Iterable[tuple[str, int, bytes]]) -> None:
    """Appends an archive to a file; the kernel unpacks all archives in a file in turn.

    Each entry is a name, a mode with the file type, and the content. A directory comes before its
    contents. Equal entries give equal bytes.
    """
    with path.open("ab") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
        for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
            encoded = name.encode() + b"\0"
            fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
            header = b"070701" + b"".join(b"%08x" % value for value in fields)
            file.write(header + encoded)
            file.write(b"\0" * (-(len(header) + len(encoded)) % 4))
            file.write(data + b"\0" * (-len(data) % 4))

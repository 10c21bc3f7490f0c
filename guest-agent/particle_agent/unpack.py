"""Unpacks the base tarball as it arrives on standard input."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import IO

from particle_agent.errors import InfrastructureError, StageError

CHUNK = 1 << 18
# The first bytes of a file name its compression: gzip (RFC 1952), xz and zstd (RFC 8878).
COMPRESSIONS = {b"\x1f\x8b": "--gzip", b"\xfd7zXZ\x00": "--xz", b"\x28\xb5\x2f\xfd": "--zstd"}


def unpack(stream: IO[bytes], root: Path) -> tuple[int, str]:
    """Unpacks a tar stream (plain, gzip, xz or zstd) into `root`; returns its size and SHA-256.

    The whole stream is read and hashed even when tar stops at the end-of-archive marker. GNU tar
    strips leading slashes, refuses "..", and creates links only after everything else, so that
    no member lands outside of `root`. Raises StageError when tar refuses the archive.
    """
    head = stream.read(6)
    option = [o for magic, o in COMPRESSIONS.items() if head.startswith(magic)]
    argv = ["tar", "--extract", "--file=-", f"--directory={root}", *option]
    argv += ["--numeric-owner", "--same-permissions", "--xattrs", "--xattrs-include=*"]
    argv += ["--delay-directory-restore", "--warning=no-timestamp", "--warning=no-unknown-keyword"]
    digest, size = hashlib.sha256(), 0
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as tar:
        assert tar.stdin is not None and tar.stderr is not None
        alive = True
        chunk = head
        while chunk:
            digest.update(chunk)
            size += len(chunk)
            if alive:
                try:
                    tar.stdin.write(chunk)
                except BrokenPipeError:
                    alive = False
            chunk = stream.read(CHUNK)
        try:
            tar.stdin.close()
        except BrokenPipeError:
            pass
        complaint = tar.stderr.read(65536).decode("utf-8", "replace")
        status = tar.wait(300)
    if status != 0:
        kind = InfrastructureError if "No space left" in complaint else StageError
        raise kind(
            f"tar cannot unpack the base tarball (status {status})",
            hint="Give the scratch disk more room with --scratch-size."
            if kind is InfrastructureError
            else "Check the file with 'tar -tf'.",
            tail=complaint.splitlines(),
        )
    if not (root / "etc").is_dir() or not (root / "usr").is_dir():
        raise StageError(
            "the base tarball holds no root file system: /etc and /usr are missing",
            hint="The archive must have the root directory itself at its top.",
        )
    return size, digest.hexdigest()

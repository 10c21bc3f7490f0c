"""Tests that need no VM but take too long for `make check`."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from particle_agent.unpack.layers import apply


def test_a_layer_of_a_hundred_thousand_entries(tmp_path: Path) -> None:
    """The entries repeat 100 directories: 100,000 different files would only test the disk."""
    headers = []
    for number in range(100):
        member = tarfile.TarInfo(f"d/{number}")
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        member.uid, member.gid = os.getuid(), os.getgid()
        headers.append(member.tobuf())
    last = tarfile.TarInfo("last")
    last.uid, last.gid = os.getuid(), os.getgid()
    apply(io.BytesIO(b"".join(headers * 1000) + last.tobuf() + bytes(1024)), tmp_path)
    assert len(list(tmp_path.rglob("*"))) == 102

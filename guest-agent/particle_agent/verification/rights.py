"""Finds files that give rights away without being part of a package."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree
from particle_agent.verification import walk
from particle_agent.verification.walk import EXECUTABLE, SETUID, WRITABLE, Found

# linux/capability.h, struct vfs_cap_data: revision and flags, then pairs of permitted and
# inheritable capabilities, the lower 32 bits before the upper 32 bits.
CAPABILITIES = "security.capability"
PERMITTED = struct.Struct("<4xI4xI")
DEVICES = "/dev/"


def check(tree: Tree, found: Sequence[Found], findings: Findings) -> None:
    """Reports files that everybody may write to, or that run with more rights than their user."""
    suspects: list[tuple[str, str, str]] = []
    for file in found:
        mode = f"its mode is {file.mode:04o}"
        if file.mode & WRITABLE and not (file.type in "bc" and file.path.startswith(DEVICES)):
            suspects.append((file.path, "world-writable", mode))
        if file.type == "f" and file.mode & SETUID:
            suspects.append((file.path, "setuid", mode))
        if file.type == "f" and file.mode & EXECUTABLE:
            permitted = _permitted(tree.root / file.path.lstrip("/"))
            if permitted:
                message = f"its permitted capabilities are {permitted:#x}"
                suspects.append((file.path, "capability", message))
    owned = walk.owned(tree, {path for path, _, _ in suspects})
    for path, code, message in sorted(suspects):
        if path not in owned:
            findings.add(code, path, message)


def _permitted(place: Path) -> int:
    """The permitted capabilities of a program (capabilities(7)), one bit each."""
    try:
        data = os.getxattr(place, CAPABILITIES, follow_symlinks=False)
    except OSError:
        return 0
    if len(data) < PERMITTED.size:
        return 0
    low, high = PERMITTED.unpack_from(data)
    return int(low | high << 32)

"""What gives rights away although no package of the system wants it so."""

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
# inheritable ones, the lower 32 bits before the upper ones.
CAPABILITIES = "security.capability"
PERMITTED = struct.Struct("<4xI4xI")
DEVICES = "/dev/"


def check(tree: Tree, found: Sequence[Found], findings: Findings) -> None:
    """Tells what everybody may write to, and what runs with other rights than its user's."""
    told: list[tuple[str, str, str]] = []
    for file in found:
        mode = f"its mode is {file.mode:04o}"
        if file.mode & WRITABLE and not (file.type in "bc" and file.path.startswith(DEVICES)):
            told.append((file.path, "world-writable", mode))
        if file.type == "f" and file.mode & SETUID:
            told.append((file.path, "setuid", mode))
        if file.type == "f" and file.mode & EXECUTABLE:
            permitted = _permitted(tree.root / file.path.lstrip("/"))
            if permitted:
                told.append((file.path, "capability", f"its permitted ones are {permitted:#x}"))
    owned = walk.owned(tree, {path for path, _, _ in told})
    for path, code, message in sorted(told):
        if path not in owned:
            findings.add(code, path, message)


def _permitted(place: Path) -> int:
    """The capabilities that a program may have (capabilities(7)), a bit each."""
    try:
        data = os.getxattr(place, CAPABILITIES, follow_symlinks=False)
    except OSError:
        return 0
    if len(data) < PERMITTED.size:
        return 0
    low, high = PERMITTED.unpack_from(data)
    return int(low | high << 32)

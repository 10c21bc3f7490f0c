"""Asks the file systems' own checkers, which change nothing here (-n, --readonly)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

CHECK_SECONDS = 600.0
# e2fsck(8), fsck.fat(8), xfs_repair(8), btrfs-check(8): the exit statuses that tell of errors.
CHECKERS: dict[str, tuple[tuple[str, ...], frozenset[int]]] = {
    "ext2": (("e2fsck", "-f", "-n"), frozenset({1, 4, 5})),
    "ext3": (("e2fsck", "-f", "-n"), frozenset({1, 4, 5})),
    "ext4": (("e2fsck", "-f", "-n"), frozenset({1, 4, 5, 12})),
    "vfat": (("fsck.fat", "-n"), frozenset({1})),
    "xfs": (("xfs_repair", "-n"), frozenset({1})),
    "btrfs": (("btrfs", "check", "--readonly", "--force"), frozenset({1})),
}
# What checkers print that says nothing of an error: who they are, and their progress.
IDLE = re.compile(
    r"^(e2fsck |Warning!  .* is mounted|WARNING: filesystem mounted|Pass \d|fsck\.fat |Phase \d|"
    r"Opening filesystem|Checking filesystem|UUID:|"
    r"\[\d/\d\]|        - |.*: \*+ WARNING: Filesystem still has errors|No modify flag|$)"
)
# The feature that a journal has to be replayed; xfs_repair's word for the same.
DIRTY_EXT = re.compile(r"^Filesystem features:.*\bneeds_recovery\b", re.MULTILINE)
DIRTY_XFS = re.compile(r"metadata changes in a log|log which now needs")
LINES = 4


def check(node: Path, kind: str) -> list[tuple[str, str]]:
    """What the checker of a file system of this kind on `node` finds: codes and messages.

    The file system may be mounted, read-only.
    """
    if kind not in CHECKERS:
        return []
    argv, statuses = CHECKERS[kind]
    if kind.startswith("ext") and DIRTY_EXT.search(_output(["dumpe2fs", "-h", str(node)])[1]):
        return [("file-system-not-unmounted", "its journal has changes to be replayed")]
    status, said = _output([*argv, str(node)])
    lines = [line.strip() for line in said.splitlines() if not IDLE.match(line)]
    told = "; ".join(lines[:LINES]) or f"{argv[0]} ends with status {status}"
    if kind == "xfs" and DIRTY_XFS.search(said):
        return [("file-system-not-unmounted", "its log has changes to be replayed")]
    if status in statuses:
        return [("file-system-broken", told)]
    if status is None:
        return [("file-system-not-checked", said)]
    return [] if status == 0 else [("file-system-not-checked", told)]


def _output(argv: list[str]) -> tuple[int | None, str]:
    """Exit status and output of a program; no status when it is missing or takes too long."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CHECK_SECONDS,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError:
        return None, f"there is no {argv[0]}"
    except subprocess.TimeoutExpired:
        return None, f"{argv[0]} took longer than {CHECK_SECONDS:.0f} s"
    return done.returncode, done.stdout.decode("utf-8", "replace")

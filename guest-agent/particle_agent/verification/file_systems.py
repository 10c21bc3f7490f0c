"""Runs the file systems' own checkers read-only (-n, --readonly)."""

from __future__ import annotations

import re
from pathlib import Path

from particle_agent.disk import reading
from particle_agent.disk.reading import Tree
from particle_agent.verification import objects

CHECK_SECONDS = 600.0
OUTPUT_LIMIT = 1 << 20
# timeout(1)
TOOK_TOO_LONG = 124
# e2fsck(8), fsck.fat(8), xfs_repair(8), btrfs-check(8): the exit statuses that mean errors.
CHECKERS: dict[str, tuple[tuple[str, ...], frozenset[int]]] = {
    "ext2": (("e2fsck", "-f", "-n"), frozenset({1, 4, 5})),
    "ext3": (("e2fsck", "-f", "-n"), frozenset({1, 4, 5})),
    "ext4": (("e2fsck", "-f", "-n"), frozenset({1, 4, 5, 12})),
    "vfat": (("fsck.fat", "-n"), frozenset({1})),
    "xfs": (("xfs_repair", "-n"), frozenset({1})),
    "btrfs": (("btrfs", "check", "--readonly", "--force"), frozenset({1})),
}
# Lines of the checkers that are no errors: versions and progress.
IDLE = re.compile(
    r"^(e2fsck |Warning!  .* is mounted|WARNING: filesystem mounted|Pass \d|fsck\.fat |Phase \d|"
    r"Opening filesystem|Checking filesystem|UUID:|"
    r"\[\d/\d\]|        - |.*: \*+ WARNING: Filesystem still has errors|No modify flag|$)"
)
# A journal has changes to be replayed: as a feature in dumpe2fs(8), and as a text of xfs_repair(8).
DIRTY_EXT = re.compile(r"^Filesystem features:.*\bneeds_recovery\b", re.MULTILINE)
DIRTY_XFS = re.compile(r"metadata changes in a log|log which now needs")
LINES = 4


def check(
    node: Path, kind: str, tree: Tree | None = None, *, fresh: bool = False
) -> list[tuple[str, str]]:
    """Checks a file system of this kind on the device `node`. Returns codes and messages.

    The file system may be mounted read-only; `tree` has its files. The objects of OSTree in a sound
    file system are checked, too, unless the disk is `fresh`.
    """
    found = _check(node, kind)
    return found if found or tree is None else objects.check(tree, fresh=fresh)


def _check(node: Path, kind: str) -> list[tuple[str, str]]:
    if kind not in CHECKERS:
        return []
    argv, statuses = CHECKERS[kind]
    if kind.startswith("ext") and DIRTY_EXT.search(_run("dumpe2fs", "-h", str(node))[1]):
        return [("file-system-not-unmounted", "its journal has changes to be replayed")]
    status, printed = _run(*argv, str(node))
    lines = [line.strip() for line in printed.splitlines() if not IDLE.match(line)]
    message = "; ".join(lines[:LINES]) or f"{argv[0]} ends with status {status}"
    if kind == "xfs" and DIRTY_XFS.search(printed):
        return [("file-system-not-unmounted", "its log has changes to be replayed")]
    if status in statuses:
        return [("file-system-broken", message)]
    if status == TOOK_TOO_LONG:
        message = f"{argv[0]} took longer than {CHECK_SECONDS:g} s"
    return [] if status == 0 else [("file-system-not-checked", message)]


def _run(*argv: str) -> tuple[int, str]:
    return reading.output(argv, seconds=CHECK_SECONDS, limit=OUTPUT_LIMIT)

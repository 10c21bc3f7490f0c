"""ext4 file systems, made from a directory in one pass, without a mount."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from particle_agent.disk.volumes import MIB, SLACK
from particle_agent.target.target import Target

BLOCK = 4096
# The smallest journal (mke2fs(8): 1024 blocks), in MiB.
SMALL_JOURNAL = 4
# The features that GRUB and an older e2fsck of the image know, and those that extlinux(1) can read.
FEATURES = "^has_journal,^orphan_file,^metadata_csum_seed"
FEATURES_OF_EXTLINUX = "^has_journal,^64bit,^metadata_csum,^orphan_file"
# Flags of inodes (linux/fs/ext4/ext4.h).
EXTENTS, IMMUTABLE = 0x80000, 0x10
BLOCK_COUNT = re.compile(r"^Block count: +(\d+)$", re.MULTILINE)


def make(
    target: Target,
    partition: Path,
    tree: Path,
    *,
    label: str,
    uuid: str,
    hash_seed: str,
    size: int,
    inodes: int,
    for_extlinux: bool,
) -> None:
    """Makes the file system of `size` bytes with the content of `tree`, without a journal."""
    count = max(size // 16384, inodes * 5 // 4)
    features = FEATURES_OF_EXTLINUX if for_extlinux else FEATURES
    target.run(
        ["mke2fs", "-q", "-t", "ext4", "-O", features, "-m", "1"]
        + ["-b", str(BLOCK), "-N", str(count), "-L", label, "-U", uuid]
        + ["-E", f"root_owner=0:0,lazy_itable_init=1,hash_seed={hash_seed}"]
        + ["-d", str(tree), str(partition)]
    )


def shrink(target: Target, partition: Path, size: int) -> int:
    """Shrinks the file system to the least possible size plus `SLACK`. Returns the size in bytes.

    Its current size is `size` bytes. It never grows: the least size of resize2fs(8) can be all of
    it.
    """
    target.run(["e2fsck", "-fy", str(partition)])
    target.run(["resize2fs", "-M", str(partition)])
    superblock = target.capture_outside(["dumpe2fs", "-h", str(partition)])
    found = BLOCK_COUNT.search(superblock)
    assert found is not None
    least = min(size, -(-int(found.group(1)) * BLOCK // MIB) * MIB + SLACK)
    target.run(["resize2fs", str(partition), f"{least // 1024}K"])
    return least


def make_immutable(target: Target, partition: Path, paths: Sequence[str]) -> None:
    """Sets the attribute `i` of chattr(1) of directories in a file system that is not mounted."""
    for path in paths:
        command = f"set_inode_field {path} flags {EXTENTS | IMMUTABLE:#x}"
        target.run(["debugfs", "-w", "-R", command, str(partition)])


def add_journal(target: Target, partition: Path, *, small: bool) -> None:
    """Adds the journal. This is the last step, because a journal keeps traces of mounts."""
    options = ["-J", f"size={SMALL_JOURNAL}"] if small else []
    target.run(["tune2fs", "-O", "has_journal", *options, str(partition)])


def allocate(target: Target, partition: Path, path: str, size: int) -> None:
    """Allocates blocks for the holes of a file, because swapon(8) refuses files with holes."""
    last = size // BLOCK - 1
    target.run(["debugfs", "-w", "-R", f"fallocate {path} 0 {last}", str(partition)])


def forget(
    target: Target, partition: Path, date: int, files: Sequence[str], directory: str
) -> None:
    """Removes the traces of mounts from the superblock, and sets the times of files to `date`.

    `date` is in seconds since 1970. The files are `directory` and `files` in it.
    """
    script = [
        *(f"set_super_value {field} @{date}" for field in ("mtime", "wtime", "lastcheck")),
        *(f"set_super_value {field} 0" for field in ("mnt_count", "kbytes_written")),
    ]
    for path in (directory, *(f"{directory}/{name}" for name in files)):
        for field in ("atime", "ctime", "mtime", "crtime"):
            script.append(f"set_inode_field {path} {field} @{date}")
            script.append(f"set_inode_field {path} {field}_extra 0")
        for field in ("generation", "version"):
            script.append(f"set_inode_field {path} {field} 0")
    target.run(["debugfs", "-w", "-f", "-", str(partition)], stdin="\n".join(script) + "\n")

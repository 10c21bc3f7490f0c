"""A disk with empty file systems, which another program fills."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from particle_agent.disk import copied, ext4, modules, vfat, volumes
from particle_agent.disk.identity import Identifiers
from particle_agent.disk.reading import MODULES
from particle_agent.disk.volumes import DiskLabel, Volume
from particle_agent.system import tarball
from particle_agent.target.target import Target

# Files of a system are larger on average.
FILE_BYTES = 8192


@dataclass(frozen=True)
class InstalledDisk:
    """The wanted disk, whose partitions bootc fills."""

    table: DiskLabel
    size: str
    parts: Sequence[Volume]
    loader: str


def sized(target: Target, wanted: InstalledDisk, source: int) -> list[Volume]:
    """The partitions. The root has room for the system, its kernel, and an update.

    bootc first unpacks the image of `source` bytes on the same file system.
    """
    with target.mounted(target.root, "--bind") as tree:
        content = tarball.measure(tree)
    *others, root = wanted.parts
    root = replace(root, content=content + source, inodes=content // FILE_BYTES, spare=content)
    return volumes.sized([*others, root], wanted.size)


def make_file_system(target: Target, part: Volume, node: Path, ids: Identifiers) -> None:
    """Makes the empty file system of a partition."""
    what = f"{part.name} file system"
    empty = target.root.parent / "empty"
    empty.mkdir()
    try:
        if part.kind == "vfat":
            vfat.make(target, node, empty, label="ESP", serial=ids.short(what))
        elif part.kind == "ext4":
            ext4.make(
                target, node, empty, label=part.name, uuid=ids[what],
                hash_seed=ids[f"hash seed {part.name}"], size=part.size, inodes=part.inodes,
                for_extlinux=False,
            )  # fmt: skip
            ext4.add_journal(target, node, small=False)
        elif part.kind in ("xfs", "btrfs"):
            copied.make(target, part.kind, node, label=part.name, uuid=ids[what], size=part.size)
    finally:
        empty.rmdir()


@contextmanager
def mounted_inside(target: Target, part: Volume, node: Path, where: str) -> Iterator[None]:
    """Mounts the file system of a partition at a directory of the target."""
    for name in MODULES.get(part.kind, (part.kind,)):
        modules.load(name)
    with target.mounted_inside(node, where, "-t", part.kind):
        yield

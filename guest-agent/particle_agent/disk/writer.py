"""Writes a tree to a disk: partitions, file systems and boot loader."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from particle_agent.contract.wire import OutputName
from particle_agent.disk import copied, ext4, vfat, volumes
from particle_agent.disk.boot import BootLoader
from particle_agent.disk.extlinux import DIRECTORY
from particle_agent.disk.identity import Identifiers
from particle_agent.disk.volumes import DiskLabel, Volume
from particle_agent.errors import StageError
from particle_agent.system import generalize
from particle_agent.target.target import Target

BLOCK = 4096
SWAP_FILE = "/swapfile"
FIND_SECONDS = 300


@dataclass(frozen=True)
class DiskLayout:
    """The wanted layout of the disk. `size` is a `DiskSize`; `swap` is in bytes.

    A disk `for_updates` has room for a second copy of the system. `swap_file` is the path of the
    swap file in the root file system.
    """

    table: DiskLabel
    file_system: Literal["ext4", "xfs", "btrfs"]
    size: str
    swap: int
    for_extlinux: bool
    for_updates: bool = False
    swap_file: str = SWAP_FILE

    @property
    def shrunk(self) -> bool:
        """Whether to shrink the root file system after filling it. XFS cannot shrink."""
        return self.size == "minimal" and self.file_system != "xfs"


class Writer:
    """Writes one disk. Callers call the methods in their order.

    `immutable` are directories of the root file system that get the attribute of chattr(1).
    """

    def __init__(
        self,
        target: Target,
        layout: DiskLayout,
        parts: Sequence[Volume],
        ids: Identifiers,
        *,
        disk: OutputName = "output",
        immutable: Sequence[str] = (),
    ) -> None:
        self._name = disk
        self._immutable = immutable
        self._target = target
        self._layout = layout
        self._parts = list(parts)
        self._ids = ids
        self._trees: dict[str, Path] = {}
        self._disk = Path()

    def take(self, tree: Path) -> None:
        """Assigns the files to the partitions. `tree` is the target without other mounts."""
        if self._layout.swap:
            # A link of that name in the image would lead to a file of the VM.
            self._target.remove(self._layout.swap_file)
        self._trees = _split(self._target, self._parts, tree)
        self._parts = [self._measured(part) for part in self._parts]
        self._make_swap()
        if self._target.source_date is not None:
            for directory in self._trees.values():
                _clamp_times(directory, self._target.source_date)

    def fill(self) -> None:
        """Makes partitions and file systems on the host's output disk."""
        self._parts = volumes.sized(self._parts, self._layout.size)
        self._partition()
        for part in self._parts:
            if part.name in self._trees:
                self._make_file_system(part, self._trees[part.name])
        if self._layout.shrunk:
            last = self._parts[-1]
            self._parts[-1] = replace(last, size=self._shrunk(last))
            self._partition()

    def install(self, loader: BootLoader) -> None:
        """Makes the disk bootable, and adds the journals."""
        target, date = self._target, self._target.source_date
        files = loader.install(target, self._disk, self._parts)
        for part in self._parts:
            if part.kind == "ext4":
                if files and part.active and date is not None:
                    directory = DIRECTORY.removeprefix("/boot" if part.name == "boot" else "")
                    ext4.forget(target, self._node(part), date, files, directory)
                if part.name == "root":
                    ext4.make_immutable(target, self._node(part), self._immutable)
                ext4.add_journal(target, self._node(part), small=self._layout.size == "minimal")
        loader.write_boot_code(target, self._disk, self._parts)
        target.run(["sync"])

    def report_finished(self) -> None:
        """Reports to the host that the disk is finished."""
        self._target.reporter.disk_written(volumes.disk_size(self._parts), self._name)

    def _shrunk(self, part: Volume) -> int:
        if part.kind == "ext4":
            return ext4.shrink(self._target, self._node(part), part.size)
        return copied.shrink(self._target, self._node(part), part.size, part.content)

    def _node(self, part: Volume) -> Path:
        return volumes.node(self._disk, self._parts, part.name)

    def _measured(self, part: Volume) -> Volume:
        if part.name not in self._trees:
            return part
        content, inodes = _measure(self._trees[part.name])
        swap = self._layout.swap if part.name == "root" else 0
        spare = content if part.name == "root" and self._layout.for_updates else 0
        return replace(part, content=content + swap, inodes=inodes, spare=spare)

    def _make_swap(self) -> None:
        """Adds a sparse swap file to the tree. Only ext4 can allocate its blocks later."""
        if self._layout.swap and self._layout.file_system == "ext4":
            self._target.write(self._layout.swap_file, "", mode=0o600)
            place = self._target.path(self._layout.swap_file, follow=False)
            os.truncate(place, self._layout.swap)
            self._target.run(["mkswap", "-q", "-U", self._ids["swap"], str(place)])

    def _partition(self) -> None:
        content = sum(part.content for part in self._parts) - self._layout.swap
        size = volumes.disk_size(self._parts)
        self._disk = self._target.output_disk(size, content=min(content, size), disk=self._name)
        volumes.partition(self._target, self._disk, self._layout.table, self._parts, self._ids)

    def _make_file_system(self, part: Volume, tree: Path) -> None:
        target, device = self._target, self._node(part)
        uuid = self._ids[f"{part.name} file system"]
        swap = self._layout.swap if part.name == "root" else 0
        if part.kind == "vfat":
            serial = self._ids.short(f"{part.name} file system")
            vfat.make(target, device, tree, label="ESP", serial=serial)
        elif part.kind == "ext4":
            ext4.make(
                target,
                device,
                tree,
                label=part.name,
                uuid=uuid,
                hash_seed=self._ids[f"hash seed {part.name}"],
                size=part.size,
                inodes=part.inodes,
                for_extlinux=self._layout.for_extlinux,
            )
            if swap:
                ext4.allocate(target, device, self._layout.swap_file, swap)
        elif part.kind in ("xfs", "btrfs"):
            copied.make(target, part.kind, device, label=part.name, uuid=uuid, size=part.size)
            with copied.mounted(target, part.kind, device) as mounted:
                copied.copy(target, tree, mounted)
                for path in self._immutable:
                    target.run(["chattr", "+i", f"{mounted}{path}"])
                if swap:
                    place = mounted / self._layout.swap_file.lstrip("/")
                    copied.make_swap(target, part.kind, place, swap, self._ids["swap"])


def check_mount_points(target: Target, parts: Sequence[Volume]) -> None:
    """Raises StageError if a link is in the place of a directory on which a partition is mounted.

    The files behind the link would not be on the partition, where the boot loader looks for them.
    """
    for part in parts:
        names = PurePosixPath(part.mount).parts
        for path in (str(PurePosixPath(*names[: n + 1])) for n in range(1, len(names))):
            if target.is_link(path):
                to = os.readlink(target.path(path, follow=False))
                raise StageError(
                    f"{path} of the image is a link to {to}, and the partition '{part.name}' needs "
                    "a directory there",
                    hint=f"Make {path} a directory with the files of {to} in a run stage before "
                    "this one, or use another base.",
                )


def _split(target: Target, parts: Sequence[Volume], tree: Path) -> dict[str, Path]:
    """Moves the directory of each partition out of `tree`.

    Returns the source directory of each file system by the name of its partition.
    """
    trees = {"root": tree}
    for part in parts:
        if part.mount not in ("", "/"):
            target.make_directory(part.mount)
            trees[part.name] = target.root.parent / f"particle-os-{part.name}"
            # Rename within one mount: `tree` is another mount of the same file system.
            target.path(part.mount).rename(trees[part.name])
            target.make_directory(part.mount)
    return trees


def _clamp_times(tree: Path, latest: int) -> None:
    for directory, _, files in os.walk(tree):
        for name in ("", *files):
            generalize.clamp_time(Path(directory, name), latest)


def _measure(tree: Path) -> tuple[int, int]:
    """The size of the tree in bytes of whole blocks, and its number of inodes."""
    # The size of a directory here depends on its former content, so count its entries instead.
    # find(1) is five times as fast as stat calls from an emulated interpreter.
    argv = ["find", str(tree), "-printf", r"%d %y %i %s %f\0"]
    listed = subprocess.run(argv, check=True, capture_output=True, timeout=FIND_SECONDS).stdout
    seen: set[bytes] = set()
    blocks = 0
    # The size in bytes of the entries of each directory on the path to the file.
    entries: list[int] = []
    for line in listed.split(b"\0")[:-1]:
        depth, kind, inode, size, name = line.split(b" ", 4)
        level = int(depth)
        blocks += sum(1 + found // BLOCK for found in entries[level:])
        del entries[level:]
        if level:
            entries[-1] += 12 + len(name)
        if kind == b"d":
            entries.append(0)
        elif inode not in seen:
            blocks += max(1, -(-int(size) // BLOCK))
        seen.add(inode)
    blocks += sum(1 + found // BLOCK for found in entries)
    return blocks * BLOCK, len(seen)

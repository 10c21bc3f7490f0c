"""The partitions of a disk, their sizes, and the partition table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from particle_agent.contract.values import bytes_of
from particle_agent.disk.identity import Identifiers
from particle_agent.errors import StageError
from particle_agent.target.target import Target

MIB = 1 << 20
DiskLabel = Literal["gpt", "msdos"]
Name = Literal["bios-boot", "esp", "boot", "root"]
FileSystemKind = Literal["ext4", "xfs", "btrfs", "vfat", "none"]
# The space before the first partition, and after the last one for the second copy of a GPT.
EDGE = MIB
# UEFI specification, 5.2.2 and 5.3; the Discoverable Partitions Specification ("extended boot
# loader"); GRUB's manual ("BIOS installation"). Each pair is for a GPT and an MBR. The type of the
# root in a GPT differs by architecture.
TYPES = {
    "bios-boot": ("21686148-6449-6e6f-744e-656564454649", ""),
    "esp": ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef"),
    "boot": ("bc13c2ff-59e6-4262-a352-b275fd6f7172", "83"),
    "root": ("", "83"),
}
# mkfs.xfs(8) makes no smaller file system. FAT32 has at least 65525 clusters.
LEAST_XFS = 300 * MIB
LEAST_ESP = 36 * MIB
# The free space that a file system of the least size needs in order to boot.
SLACK = 24 * MIB


@dataclass(frozen=True)
class Volume:
    """A partition with a file system.

    `mount` is its mount point in the running system. `content` is the size of its files in bytes of
    whole blocks, and `inodes` the number of files. `spare` is the size of the files that an update
    adds before it removes others. `size` is in bytes.
    """

    name: Name
    kind: FileSystemKind
    mount: str = ""
    # Whether this is the partition that BIOS boot code looks for.
    active: bool = False
    content: int = 0
    inodes: int = 0
    spare: int = 0
    size: int = 0

    @property
    def least(self) -> int:
        """The smallest size in bytes that certainly holds the content."""
        content = self.content
        if self.kind == "ext4":
            # Inode tables take 1/64, the journal at most 64 MiB at these sizes.
            return _whole(content + content // 16 + 66 * MIB)
        if self.kind == "xfs":
            return max(LEAST_XFS, _whole(content + content // 16 + 100 * MIB))
        if self.kind == "btrfs":
            # Btrfs stores metadata twice and allocates space in large chunks.
            return _whole(content + content // 5 + 288 * MIB)
        if self.kind == "vfat":
            return max(LEAST_ESP, _whole(content + content // 64 + 4 * MIB))
        return MIB

    @property
    def roomy(self) -> int:
        """A size in bytes with space for updates. Volumes other than root only get kernels."""
        if self.name == "root":
            content = self.content + self.spare
            return max(self.least, _whole(content + content // 4 + 94 * MIB))
        if self.kind == "none":
            return self.least
        updates = _whole(3 * self.content + 32 * MIB)
        return max(self.least, updates, (64 if self.content < 16 * MIB else 256) * MIB)


def _whole(size: int) -> int:
    """The size rounded up to whole MiB."""
    return -(-size // MIB) * MIB


def sized(volumes: Sequence[Volume], wanted: str) -> list[Volume]:
    """Returns the volumes with their sizes on a disk of size `wanted`, which is a `DiskSize`.

    The last volume takes the remaining space. Raises StageError when this is too little.
    """
    *others, last = volumes
    if wanted in ("auto", "minimal"):
        exact = wanted == "minimal"
        return [replace(v, size=v.least if exact else v.roomy) for v in volumes]
    fixed = [replace(v, size=v.roomy) for v in others]
    least = sum(v.size for v in fixed) + last.least + 2 * EDGE
    size = bytes_of(wanted)
    if size < least:
        total = sum(v.content for v in volumes)
        raise StageError(
            f"size {wanted} is too small: the system holds {total // MIB} MiB and needs a disk "
            f"of at least {least // MIB} MiB",
            hint=f"Write 'size: {least // MIB}M' or more, 'size: minimal' for the smallest disk, "
            "or 'size: auto' for one with room.",
        )
    return [*fixed, replace(last, size=size - (least - last.least))]


def disk_size(volumes: Sequence[Volume]) -> int:
    """The size in bytes of a disk with these volumes."""
    return sum(v.size for v in volumes) + 2 * EDGE


def partition(
    target: Target, disk: Path, table: DiskLabel, volumes: Sequence[Volume], ids: Identifiers
) -> None:
    """Writes the partition table. The last partition ends at the end of the disk."""
    gpt = table == "gpt"
    identifier = ids["disk"] if gpt else f"0x{ids.short('disk')}"
    lines = [f"label: {'gpt' if gpt else 'dos'}", f"label-id: {identifier}"]
    start = EDGE
    for volume in volumes:
        fields = [f"start={start // MIB}MiB"]
        if volume is not volumes[-1]:
            fields.append(f"size={volume.size // MIB}MiB")
        fields.append(f"type={_type(target, volume.name, gpt=gpt)}")
        if gpt:
            fields += [f"uuid={ids[f'partition {volume.name}']}", f'name="{volume.name}"']
        if volume.active:
            fields.append("attrs=LegacyBIOSBootable" if gpt else "bootable")
        lines.append(", ".join(fields))
        start += volume.size
    argv = ["sfdisk", "--quiet", "--wipe=always", "--no-tell-kernel", str(disk)]
    target.run(argv, stdin="\n".join(lines) + "\n")
    # sfdisk(8) would sleep before it notifies the kernel, in case udev holds the disk open. The VM
    # has no udev.
    target.run(["blockdev", "--rereadpt", str(disk)])


def _type(target: Target, name: Name, *, gpt: bool) -> str:
    of_gpt, of_mbr = TYPES[name]
    return (of_gpt or target.architecture.image.root_type) if gpt else of_mbr


def node(disk: Path, volumes: Sequence[Volume], name: Name) -> Path:
    """The device of a partition."""
    return Path(f"{disk}{[v.name for v in volumes].index(name) + 1}")

"""Finds the file systems of a disk, mounts them read-only, and resolves their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from particle_agent.contract.contents import SEALED
from particle_agent.contract.inspection import FileSystem
from particle_agent.disk import reading
from particle_agent.disk.reading import Tree
from particle_agent.ostree.reading import systems
from particle_agent.verification.table import (
    ISO_UNUSED,
    SECTOR,
    PartitionEntry,
    PartitionTable,
    is_iso,
    sector_size,
)

# The notations for names of file systems: the tags of fstab(5), and udev's links.
TAGS = {
    "UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"
}  # fmt: skip
NAMED = re.compile(r"""(UUID|LABEL|PARTUUID|PARTLABEL)=(["']?)(.*)\2""")
LINKED = re.compile(r"/dev/disk/(by-uuid|by-label|by-partuuid|by-partlabel)/(.+)")
# A hybrid image is an ISO 9660 file system and a disk. Its first partition is the file system
# itself, and begins within the bytes that ISO 9660 leaves to others, or behind them.
ISO = "iso9660"
# Names that depend on the bus of a disk and on the order of detection.
UNSTABLE = re.compile(
    r"/dev/(?:(?:[shv]d|xvd)[a-z]+(?P<number>\d*)|(?:nvme\d+n|mmcblk)\d+(?:p(?P<after_p>\d+))?)"
)


@dataclass(frozen=True, kw_only=True)
class FoundVolume:
    """A partition, or a disk without partitions, with its file system.

    `kind` is empty without a known file system. `tree` is None when the file system cannot be
    mounted, or is a kind without files. `systems` are the root directories of the systems in it.
    `entry` is None for the whole disk.
    """

    number: int
    kind: str
    uuid: str
    label: str
    entry: PartitionEntry | None
    tree: Tree | None = None
    systems: tuple[Tree, ...] = ()

    @property
    def trees(self) -> tuple[Tree, ...]:
        """The directories from which a boot loader may resolve a path."""
        found = (self.tree, *self.systems)
        return tuple({tree.root: tree for tree in found if tree is not None}.values())

    @property
    def name(self) -> str:
        """The volume's name in findings."""
        return f"partition {self.number}" if self.entry else "the disk"

    @property
    def is_root(self) -> bool:
        """Whether the volume is a root file system."""
        return bool(self.systems)

    def node(self, device: Path) -> Path:
        """The device of the volume on the disk `device`."""
        return _node(device, self.entry)

    def answers_to(self, tag: str, value: str) -> bool:
        """Whether the tag (UUID, LABEL, …) and the value name this volume."""
        mine = {"UUID": self.uuid, "LABEL": self.label}
        if self.entry is not None:
            mine |= {"PARTUUID": self.entry.uuid, "PARTLABEL": self.entry.name}
        if tag.endswith("UUID"):
            return mine.get(tag, "").lower() == value.lower()
        return mine.get(tag, "") == value


def parse(name: str) -> tuple[str, str] | None:
    """The tag and value of a name such as UUID=… or /dev/disk/by-uuid/…; None for other names."""
    if match := NAMED.fullmatch(name):
        return match.group(1), match.group(3)
    if match := LINKED.fullmatch(name):
        tag = next(tag for tag, link in TAGS.items() if link == match.group(1))
        return tag, re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m.group(1), 16)), match.group(2))
    return None


def find(volumes: Sequence[FoundVolume], name: tuple[str, str]) -> FoundVolume | None:
    """The file system that a tag and value name."""
    return next((v for v in volumes if v.kind and v.answers_to(*name)), None)


def lacks_partition(volumes: Sequence[FoundVolume], name: str) -> bool:
    """Whether a name such as /dev/sda7 has a partition number that the disk lacks."""
    match = UNSTABLE.fullmatch(name)
    number = match and (match["number"] or match["after_p"])
    if not number:
        return False
    return int(number) not in [volume.number for volume in volumes]


@contextmanager
def readable(device: Path) -> Iterator[Path]:
    """The disk as a device whose sectors have the size for which its GPT was made."""
    with device.open("rb") as disk:
        sector = sector_size(disk, disk.seek(0, os.SEEK_END))
    if sector == SECTOR:
        yield device
        return
    with reading.looped(device, sector) as loop:
        yield loop


def identify(device: Path, table: PartitionTable | None) -> list[FoundVolume]:
    """The volumes of a disk: its partitions, or the whole disk if it is a file system.

    A hybrid image has both: the whole disk is the volume of its first partition.
    """
    if table is None:
        whole = reading.identify(device)
        return [] if whole is None else [_volume(whole, 0, None)]
    iso = hybrid(device)
    found = []
    for entry in table.entries:
        place = _node(device, entry)
        if iso is not None and entry.start <= ISO_UNUSED:
            found.append(_volume(iso, entry.number, None))
        else:
            # The kernel has no device for a partition outside the disk.
            known = reading.identify(place) if place.exists() else None
            found.append(_volume(known, entry.number, entry))
    return found


def hybrid(device: Path) -> FileSystem | None:
    """The ISO 9660 file system of a whole disk, or None."""
    with device.open("rb") as disk:
        if not is_iso(disk):
            return None
    whole = reading.identify(device)
    return whole if whole is not None and whole.kind == ISO else None


def _volume(known: FileSystem | None, number: int, entry: PartitionEntry | None) -> FoundVolume:
    kind, uuid, label = (known.kind, known.uuid, known.label) if known else ("", "", "")
    return FoundVolume(number=number, kind=kind, uuid=uuid, label=label, entry=entry)


def is_missing(volumes: Sequence[FoundVolume], name: tuple[str, str]) -> bool:
    """Whether the tag and value certainly name nothing on the disk. Containers are not opened."""
    return find(volumes, name) is None and not any(v.kind in SEALED for v in volumes)


@contextmanager
def mounted(device: Path, identified: Sequence[FoundVolume]) -> Iterator[list[FoundVolume]]:
    """Mounts the volumes read-only. Yields them with their trees."""
    with ExitStack() as stack:
        found = []
        for volume in identified:
            node = volume.node(device)
            if volume.entry is None and volume.number:
                # The kernel mounts no disk after it has mounted one of its partitions.
                node = stack.enter_context(reading.looped(device, SECTOR))
            place = stack.enter_context(reading.mounted(node, volume.kind))
            tree = None if place is None else Tree(place)
            inside = () if tree is None else tuple(systems(tree, volume.kind))
            found.append(replace(volume, tree=tree, systems=inside))
        yield found


def _node(device: Path, entry: PartitionEntry | None) -> Path:
    return reading.partition(device, entry.number) if entry else device

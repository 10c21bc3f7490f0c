"""Finds the file systems of a disk, mounts them read-only, and resolves their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from particle_agent.disk import reading
from particle_agent.disk.reading import Tree
from particle_agent.verification.table import PartitionEntry, PartitionTable

# The notations for names of file systems: the tags of fstab(5), and udev's links.
TAGS = {
    "UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"
}  # fmt: skip
NAMED = re.compile(r"""(UUID|LABEL|PARTUUID|PARTLABEL)=(["']?)(.*)\2""")
LINKED = re.compile(r"/dev/disk/(by-uuid|by-label|by-partuuid|by-partlabel)/(.+)")
# Containers of file systems, which are not opened.
CONTAINERS = ("crypto_LUKS", "LVM2_member", "linux_raid_member", "zfs_member", "bcache")
# Names that depend on the bus of a disk and on the order of detection.
UNSTABLE = re.compile(
    r"/dev/(?:(?:[shv]d|xvd)[a-z]+(?P<number>\d*)|(?:nvme\d+n|mmcblk)\d+(?:p(?P<after_p>\d+))?)"
)


@dataclass(frozen=True, kw_only=True)
class FoundVolume:
    """A partition, or a disk without partitions, with its file system.

    `kind` is empty without a known file system. `tree` is None when the file system cannot be
    mounted, or is a kind without files.
    """

    number: int
    kind: str
    uuid: str
    label: str
    entry: PartitionEntry | None
    tree: Tree | None = None

    @property
    def name(self) -> str:
        """The volume's name in findings."""
        return f"partition {self.number}" if self.entry else "the disk"

    @property
    def is_root(self) -> bool:
        """Whether the volume is a root file system."""
        return bool(self.tree and self.tree.names("/usr") and self.tree.names("/etc"))

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


def identify(device: Path, table: PartitionTable | None) -> list[FoundVolume]:
    """The volumes of a disk: its partitions, or the whole disk if it is a file system."""
    entries = [None] if table is None else [*table.entries]
    found = []
    for entry in entries:
        place = _node(device, entry)
        # The kernel has no device for a partition outside the disk.
        known = reading.identify(place) if place.exists() else None
        number = entry.number if entry else 0
        if known is not None:
            found.append(
                FoundVolume(
                    number=number, kind=known.kind, uuid=known.uuid, label=known.label, entry=entry
                )
            )
        elif entry is not None:
            found.append(FoundVolume(number=number, kind="", uuid="", label="", entry=entry))
    return found


def is_missing(volumes: Sequence[FoundVolume], name: tuple[str, str]) -> bool:
    """Whether the tag and value certainly name nothing on the disk. Containers are not opened."""
    return find(volumes, name) is None and not any(v.kind in CONTAINERS for v in volumes)


@contextmanager
def mounted(device: Path, identified: Sequence[FoundVolume]) -> Iterator[list[FoundVolume]]:
    """Mounts the volumes read-only. Yields them with their trees."""
    with ExitStack() as stack:
        found = []
        for volume in identified:
            place = stack.enter_context(reading.mounted(volume.node(device), volume.kind))
            found.append(replace(volume, tree=None if place is None else Tree(place)))
        yield found


def _node(device: Path, entry: PartitionEntry | None) -> Path:
    return Path(f"{device}{entry.number}") if entry else device

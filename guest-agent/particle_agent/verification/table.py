"""Reads and verifies partition tables: GPT with both copies, and MBR.

UEFI specification 2.10, 5.2 (MBR) and 5.3 (GPT). The disk is untrusted, so all values are checked.
"""

from __future__ import annotations

import binascii
import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, Literal

from particle_agent.contract.findings import Findings

SECTOR = 512
# The sectors of "4Kn" disks. In a GPT, all places are numbers of sectors, so that it fits disks of
# one size of sector only.
LARGE_SECTOR = 4096
_FOR_LARGE_SECTORS = (
    f"it is for disks with sectors of {LARGE_SECTOR} bytes; on a disk with sectors of {SECTOR}, "
    "such as most virtual ones, no system finds its partitions"
)
ALIGNMENT = 4096
SIGNATURE = b"EFI PART"
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
ENTRY = struct.Struct("<16s16sQQQ72s")
# The limit for the bytes of all entries. By the specification an entry has 128 bytes or a multiple.
# In practice all entries together have 16 KiB.
ENTRIES_LIMIT = 1 << 20
LEGACY_BIOS_BOOTABLE = 1 << 2
MBR_SIGNATURE = b"\x55\xaa"
MBR_ENTRY = struct.Struct("<B3sB3sII")
MBR_ENTRIES = 446
ACTIVE = 0x80
PROTECTIVE = 0xEE
EXTENDED = (0x05, 0x0F, 0x85)
FIRST_LOGICAL = 5
LOGICAL_LIMIT = 60
# The bytes at the beginning that ISO 9660 leaves to others (ECMA-119, 6.2.1).
ISO_UNUSED = 32768


@dataclass(frozen=True, kw_only=True)
class PartitionEntry:
    """A partition, from the byte `start` up to, but excluding, `end`.

    `type` is in the notation of sfdisk(8).
    """

    number: int
    start: int
    end: int
    type: str
    uuid: str
    name: str = ""
    active: bool = False


@dataclass(frozen=True, kw_only=True)
class PartitionTable:
    """A partition table. Partitions must lie between the bytes `first` and `last` of the disk."""

    label: Literal["gpt", "dos"]
    entries: tuple[PartitionEntry, ...]
    first: int
    last: int


@dataclass(frozen=True)
class _Sectors:
    """The sectors of a disk: their size in bytes, and their number."""

    size: int
    count: int

    def read(self, disk: IO[bytes], number: int) -> bytes:
        disk.seek(number * self.size)
        return disk.read(self.size)


@dataclass(frozen=True)
class _Header:
    mine: int
    other: int
    first_usable: int
    last_usable: int
    disk: bytes
    entries: bytes
    entry_size: int


def sector_size(disk: IO[bytes], size: int) -> int:
    """The size in bytes of the sectors for which the GPT of a disk of `size` bytes was made.

    It is SECTOR for a disk without a GPT.
    """
    firsts = {sector: sector for sector in (SECTOR, LARGE_SECTOR)}
    lasts = {sector: size - sector for sector in (SECTOR, LARGE_SECTOR)}
    for sector, place in (*firsts.items(), *lasts.items()):
        disk.seek(max(0, place))
        if disk.read(len(SIGNATURE)) == SIGNATURE:
            return sector
    return SECTOR


def read(disk: IO[bytes], size: int, findings: Findings) -> PartitionTable | None:
    """The partition table of a disk of `size` bytes; None when there is no valid table."""
    sector, types = _mbr(disk)
    if types and PROTECTIVE not in types and is_iso(disk):
        # A hybrid image may have a GPT as well, which systems ignore without a protective MBR.
        return _read_mbr(disk, sector, size)
    each = sector_size(disk, size)
    sectors = _Sectors(each, size // each)
    primary = _header(disk, 1, sectors)
    if PROTECTIVE in types or isinstance(primary, _Header):
        if PROTECTIVE not in types:
            message = "the MBR has no entry for the GPT"
            findings.add("protective-mbr-missing", "partition table", message)
        if each != SECTOR:
            findings.add("gpt-sector-size", "partition table", _FOR_LARGE_SECTORS)
        return _read_gpt(disk, primary, sectors, findings)
    return _read_mbr(disk, sector, size) if types else None


def check(table: PartitionTable, findings: Findings) -> None:
    """Reports partitions that lie outside, are unaligned, overlap, or share a UUID."""
    for entry in table.entries:
        place = f"partition {entry.number}"
        if entry.start < table.first or entry.end > table.last or entry.start >= entry.end:
            message = f"it has the bytes from {entry.start} to {entry.end}; the table allows bytes "
            message += f"from {table.first} to {table.last}"
            findings.add("partition-outside", place, message)
        elif entry.start % ALIGNMENT:
            findings.add("partition-unaligned", place, f"it starts at byte {entry.start}")
    for before, after in pairwise(sorted(table.entries, key=lambda entry: entry.start)):
        if after.start < before.end:
            place = f"partitions {before.number} and {after.number}"
            message = f"one ends at byte {before.end}, the other starts at byte {after.start}"
            findings.add("partition-overlap", place, message)
    for one, other in same([(f"partition {e.number}", e.uuid) for e in table.entries]):
        findings.add("partition-duplicate", f"{one} and {other}", "programs may use either one")


def same(named: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs of names with equal identities. `named` are pairs of name and identity."""
    pairs = pairwise(sorted(named, key=lambda one: one[1]))
    return [(one[0], other[0]) for one, other in pairs if one[1] == other[1]]


# GPT


def _read_gpt(
    disk: IO[bytes], primary: _Header | str, sectors: _Sectors, findings: Findings
) -> PartitionTable | None:
    last = sectors.count - 1
    place = primary.other if isinstance(primary, _Header) else last
    backup = _header(disk, place, sectors)
    if isinstance(primary, str):
        findings.add("gpt-primary-broken", "partition table", f"the first copy: {primary}")
    if isinstance(backup, str):
        findings.add("gpt-backup-broken", "partition table", f"the second copy: {backup}")
    elif place != last:
        message = f"it is in sector {place}, but the last sector is {last}"
        findings.add("gpt-backup-misplaced", "partition table", message)
    whole = [copy for copy in (primary, backup) if isinstance(copy, _Header)]
    if len({_content(copy) for copy in whole}) > 1:
        message = "they differ in the disk's UUID, the partitions or the usable sectors"
        findings.add("gpt-copies-differ", "partition table", message)
    if not whole:
        return None
    header = whole[0]
    return PartitionTable(
        label="gpt",
        entries=tuple(_gpt_entries(header, sectors.size)),
        first=header.first_usable * sectors.size,
        last=min(header.last_usable + 1, sectors.count) * sectors.size,
    )


def _content(header: _Header) -> tuple[object, ...]:
    return (header.disk, header.entries, header.first_usable, header.last_usable)


def _header(disk: IO[bytes], sector: int, sectors: _Sectors) -> _Header | str:
    """The header in a sector with its entries, or the text of an error."""
    if not 0 < sector < sectors.count:
        return f"it should be in sector {sector}, but the disk has {sectors.count} sectors"
    data = sectors.read(disk, sector)
    if len(data) < SECTOR or not data.startswith(SIGNATURE):
        return f"there is no header in sector {sector}"
    (_, _, length, checksum, _, mine, other, first, last, guid, where, count, each, entries_sum) = (
        HEADER.unpack_from(data)
    )
    if not HEADER.size <= length <= sectors.size:
        return f"the header in sector {sector} has an impossible size, {length} bytes"
    if binascii.crc32(data[:16] + bytes(4) + data[20:length]) != checksum:
        return f"the header in sector {sector} does not match its checksum"
    if mine != sector:
        return f"the header in sector {sector} belongs to sector {mine}"
    if each < ENTRY.size or count * each > ENTRIES_LIMIT or where >= sectors.count:
        return f"the header in sector {sector} names impossible entries"
    disk.seek(where * sectors.size)
    entries = disk.read(count * each)
    if binascii.crc32(entries) != entries_sum:
        return f"the entries from sector {where} on do not match their checksum"
    return _Header(mine, other, first, last, guid, entries, each)


def _gpt_entries(header: _Header, sector: int) -> Iterator[PartitionEntry]:
    for index in range(len(header.entries) // header.entry_size):
        kind, guid, start, end, attributes, name = ENTRY.unpack_from(
            header.entries, index * header.entry_size
        )
        if kind == bytes(16):
            continue
        yield PartitionEntry(
            number=index + 1,
            start=start * sector,
            end=(end + 1) * sector,
            type=str(uuid.UUID(bytes_le=kind)),
            uuid=str(uuid.UUID(bytes_le=guid)),
            name=name.decode("utf-16-le", "replace").partition("\0")[0],
            active=bool(attributes & LEGACY_BIOS_BOOTABLE),
        )


# MBR


def has_mbr(disk: IO[bytes]) -> bool:
    """Whether the disk has an MBR with a partition; a file system may have only its signature."""
    return bool(_mbr(disk)[1])


def is_iso(disk: IO[bytes]) -> bool:
    """Whether the disk has the first volume descriptor of ISO 9660 (ECMA-119, 8.1)."""
    disk.seek(ISO_UNUSED)
    return disk.read(6)[1:] == b"CD001"


def _mbr(disk: IO[bytes]) -> tuple[bytes, list[int]]:
    """The first sector, and the types of its partitions."""
    disk.seek(0)
    sector = disk.read(SECTOR)
    used = filter(_is_used, _mbr_entries(sector)) if _is_mbr(sector) else ()
    return sector, [entry[2] for entry in used]


def _is_used(entry: tuple[int, bytes, int, bytes, int, int]) -> bool:
    # The partition of a hybrid image may have the type 0. Linux looks at the size, too.
    return bool(entry[2] or entry[5])


def _is_mbr(sector: bytes) -> bool:
    """Whether the sector is an MBR. A file system's first sector may have the same signature."""
    if len(sector) < SECTOR or not sector.endswith(MBR_SIGNATURE):
        return False
    return all(entry[0] in (0, ACTIVE) for entry in _mbr_entries(sector))


def _mbr_entries(sector: bytes) -> list[tuple[int, bytes, int, bytes, int, int]]:
    places = range(MBR_ENTRIES, MBR_ENTRIES + 4 * MBR_ENTRY.size, MBR_ENTRY.size)
    return [MBR_ENTRY.unpack_from(sector, place) for place in places]


def _read_mbr(disk: IO[bytes], sector: bytes, size: int) -> PartitionTable:
    identifier = int.from_bytes(sector[440:444], "little")

    def entry(number: int, status: int, kind: int, start: int, count: int) -> PartitionEntry:
        return PartitionEntry(
            number=number,
            start=start * SECTOR,
            end=(start + count) * SECTOR,
            type=f"{kind:x}",
            uuid=f"{identifier:08x}-{number:02x}",
            active=status == ACTIVE,
        )

    entries = []
    for number, each in enumerate(_mbr_entries(sector), start=1):
        status, _, kind, _, start, count = each
        if kind in EXTENDED:
            for logical, found in enumerate(_logical(disk, start), start=FIRST_LOGICAL):
                entries.append(entry(logical, *found))
        elif _is_used(each):
            entries.append(entry(number, status, kind, start, count))
    return PartitionTable(
        label="dos", entries=tuple(entries), first=SECTOR, last=size // SECTOR * SECTOR
    )


def _logical(disk: IO[bytes], extended: int) -> Iterator[tuple[int, int, int, int]]:
    """The status, type, first sector and length of each partition in an extended partition."""
    place = extended
    for _ in range(LOGICAL_LIMIT):
        disk.seek(place * SECTOR)
        sector = disk.read(SECTOR)
        if not _is_mbr(sector):
            return
        own, link, *_ = _mbr_entries(sector)
        if own[2]:
            yield own[0], own[2], place + own[4], own[5]
        if link[2] not in EXTENDED or not link[4]:
            return
        place = extended + link[4]

"""Moves the second table of a GPT to the end of a disk that has become larger.

UEFI Specification 2.10, section 5.3: the second header is in the last block of the disk, its table
before it. Programs and clouds complain about a disk without them.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from particle_os.errors import UsageError
from particle_os.system.regular_file import write_whole

SECTOR = 512
SIGNATURE = b"EFI PART"
# The fields of a header; the checksum counts `size` bytes of it.
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
# A table of 128 entries has 16 KiB.
TABLE_LIMIT = 1 << 20
PROTECTIVE, MBR_ENTRIES, MBR_ENTRY = 0xEE, 446, 16


def move_second_table(disk: Path) -> None:
    """Makes both headers fit the size of a raw disk with sectors of 512 bytes.

    Leaves a disk without a valid GPT as it is. Raises OSError, and UsageError for a valid header
    with places outside of the disk.
    """
    with disk.open("r+b") as file:
        last = os.fstat(file.fileno()).st_size // SECTOR - 1
        file.seek(SECTOR)
        first = file.read(SECTOR)
        if len(first) < SECTOR or not first.startswith(SIGNATURE):
            return
        fields = list(_HEADER.unpack_from(first))
        size, count, width = fields[2], fields[11], fields[12]
        length = count * width
        if not _HEADER.size <= size <= SECTOR or not 0 < length <= TABLE_LIMIT:
            return
        if _checksum(first[:size]) != fields[3]:
            return
        sectors = -(-length // SECTOR)
        # The header is in sector 1. Both tables are on the disk, the first one before the second.
        if fields[5] != 1 or not 2 <= fields[10] <= last - 2 * sectors:
            raise UsageError(
                "the header of the image's GPT names places where no header and no table can be",
                hint="Repair the table with sgdisk(8) or fdisk(8), or build the image again.",
            )
        file.seek(fields[10] * SECTOR)
        table = file.read(length)
        if zlib.crc32(table) != fields[13]:
            return
        # The other header, and the last sector that a partition may have.
        fields[6], fields[8] = last, last - sectors - 1
        second = [*fields]
        second[5], second[6], second[10] = last, fields[5], last - sectors
        file.seek((last - sectors) * SECTOR)
        file.write(table.ljust(sectors * SECTOR, b"\0"))
        for header, rest in ((second, first), (fields, first)):
            file.seek(header[5] * SECTOR)
            file.write(_written(header, rest))
        _protect(file.fileno(), last)


def _checksum(header: bytes) -> int:
    """The checksum of a header, with zeroes in the place of the checksum."""
    return zlib.crc32(header[:16] + bytes(4) + header[20:])


def _written(fields: list[object], before: bytes) -> bytes:
    header = bytearray(before)
    _HEADER.pack_into(header, 0, *fields)
    size = int.from_bytes(header[12:16], "little")
    struct.pack_into("<I", header, 16, _checksum(bytes(header[:size])))
    return bytes(header)


def _protect(descriptor: int, last: int) -> None:
    """Lets the protective MBR cover the whole disk."""
    for number in range(4):
        place = MBR_ENTRIES + number * MBR_ENTRY
        if os.pread(descriptor, 1, place + 4) == bytes([PROTECTIVE]):
            end = struct.pack("<I", min(last, 0xFFFFFFFF))
            write_whole(descriptor, end, "the protective MBR", place + 12)

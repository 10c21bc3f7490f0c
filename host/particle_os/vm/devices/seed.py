"""A data source of cloud-init: the disk that NoCloud reads, a FAT file system with two files.

Formats: https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html, and Microsoft's
"FAT: General Overview of On-Disk Format", version 1.03.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping

from particle_os.errors import UsageError

LABEL = b"CIDATA     "
SECTOR = 512
# A cluster is a sector. With fewer than 4085 clusters, the file system is FAT12.
SECTORS, FAT_SECTORS, ROOT_ENTRIES = 4096, 12, 32
ROOT_SECTORS = ROOT_ENTRIES * 32 // SECTOR
LIMIT = 1 << 20
END_OF_FILE, MEDIA = 0xFFF, 0xF8
VOLUME_LABEL, ARCHIVE, LONG_NAME, LAST_PART = 0x08, 0x20, 0x0F, 0x40
# 1980-01-01, the first day of FAT.
DATE = 0x21
# The UTF-16 characters of a part of a long name.
PART = 13


def no_cloud(user_data: bytes) -> bytes:
    """Returns a disk with the user data; other data is another instance. Raises UsageError."""
    if len(user_data) > LIMIT:
        raise UsageError(f"the user data is larger than {LIMIT >> 20} MiB")
    instance = hashlib.sha256(user_data).hexdigest()[:16]
    meta_data = f"instance-id: particle-os-{instance}\n".encode()
    return _file_system({"user-data": user_data, "meta-data": meta_data})


def _file_system(files: Mapping[str, bytes]) -> bytes:
    root = struct.pack("<11sB12xHHI", LABEL, VOLUME_LABEL, DATE, 0, 0)
    table, data = [0xF00 | MEDIA, END_OF_FILE], b""
    for number, (name, content) in enumerate(files.items(), start=1):
        first = len(table) if content else 0
        clusters = -(-len(content) // SECTOR)
        table += [*range(first + 1, first + clusters), END_OF_FILE] if clusters else []
        data += content.ljust(clusters * SECTOR, b"\0")
        short = f"{name[:6].upper()}~{number}".encode().ljust(11)
        root += b"".join(_long_name(name, short))
        root += struct.pack("<11sB12xHHI", short, ARCHIVE, DATE, first, len(content))
    root = root.ljust(ROOT_SECTORS * SECTOR, b"\0")
    return (_boot_sector() + 2 * _packed(table) + root + data).ljust(SECTORS * SECTOR, b"\0")


def _boot_sector() -> bytes:
    # The fields from the jump instruction on (3.1), and those of FAT12 (3.2).
    sector = struct.pack(
        "<3s8sHBHBHHBHHHII", b"\xeb\x3c\x90", b"MSWIN4.1", SECTOR, 1, 1, 2, ROOT_ENTRIES,
        SECTORS, MEDIA, FAT_SECTORS, 32, 64, 0, 0,
    )  # fmt: skip
    sector += struct.pack("<BBBI11s8s", 0x80, 0, 0x29, 0x05051980, LABEL, b"FAT12   ")
    return sector.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def _packed(table: list[int]) -> bytes:
    """The table of clusters: two entries of 12 bits take three bytes."""
    even = [*table, 0] if len(table) % 2 else table
    pairs = zip(even[::2], even[1::2], strict=True)
    packed = b"".join((low | high << 12).to_bytes(3, "little") for low, high in pairs)
    return packed.ljust(FAT_SECTORS * SECTOR, b"\0")


def _long_name(name: str, short: bytes) -> Iterator[bytes]:
    """Yields the entries of a long name, its last part first (7.1)."""
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7 | checksum >> 1) + byte & 0xFF
    parts = [name[at : at + PART] for at in range(0, len(name), PART)]
    for number, part in reversed(list(enumerate(parts, start=1))):
        text = part.encode("utf-16-le")
        if len(part) < PART:
            text = (text + b"\0\0").ljust(2 * PART, b"\xff")
        order = number | (LAST_PART if number == len(parts) else 0)
        yield struct.pack(
            "<B10sBBB12sH4s", order, text[:10], LONG_NAME, 0, checksum, text[10:22], 0, text[22:]
        )

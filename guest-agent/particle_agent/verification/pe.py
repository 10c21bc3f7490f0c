"""Reads UEFI programs: https://learn.microsoft.com/en-us/windows/win32/debug/pe-format."""

from __future__ import annotations

import struct

# The bytes of a program that hold its headers.
HEAD_BYTES = 1 << 16
OFFSET, MAGIC = 0x3C, b"PE\0\0"
MACHINE = struct.Struct("<4xH")
SECTION = struct.Struct("<8sIIII")
SECTION_BYTES, HEADER_BYTES, SECTIONS_LIMIT = 40, 24, 96


def is_whole(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins with `head` is a program with all sections."""
    parts = sections(head).values()
    return bool(parts) and all(start + length <= size for start, length in parts)


def machine(head: bytes) -> int:
    """The number of the machine that a program with this beginning is for; 0 for another file."""
    place = _header(head)
    return 0 if place is None else int(MACHINE.unpack_from(head, place)[0])


def _header(head: bytes) -> int | None:
    """The place of the header in a program; None for another file."""
    if len(head) < OFFSET + 4:
        return None
    place = int.from_bytes(head[OFFSET : OFFSET + 4], "little")
    is_there = head[place : place + 4] == MAGIC and len(head) >= place + HEADER_BYTES
    return place if is_there else None


def sections(head: bytes) -> dict[str, tuple[int, int]]:
    """The sections of a PE program by name: the first byte, and the number of used bytes."""
    place = _header(head)
    if place is None:
        return {}
    count, options = struct.unpack_from("<6xH12xH", head, place)
    first = place + HEADER_BYTES + options
    found = {}
    for index in range(min(count, SECTIONS_LIMIT)):
        where = first + index * SECTION_BYTES
        if where + SECTION_BYTES > len(head):
            break
        name, used, _, stored, start = SECTION.unpack_from(head, where)
        found[name.rstrip(b"\0").decode("ascii", "replace")] = (start, min(used, stored))
    return found

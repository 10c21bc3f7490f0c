"""Credentials for a guest's systemd, as SMBIOS tables (System Management BIOS 3.7, 7.12: type 11).

Each credential has a separate table, because systemd before version 257 reads only one memory page
of a table (https://github.com/systemd/systemd/pull/33539).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from pathlib import Path

OEM_STRINGS = 11
# QEMU's own tables have other handles.
FIRST_HANDLE = 0x0B00
PAGE = 4096


def table(number: int, name: str, value: bytes) -> bytes:
    """Returns the table for one credential; `number` makes its handle unique.

    Raises ValueError when the table does not fit into a page.
    """
    text = f"io.systemd.credential.binary:{name}={base64.b64encode(value).decode('ascii')}"
    # The header holds the type, its own length, the handle and the count of strings. Each string
    # ends with a zero byte, and another zero byte ends the table.
    header = struct.pack("<BBHB", OEM_STRINGS, 5, FIRST_HANDLE + number, 1)
    data = header + text.encode() + b"\0\0"
    if len(data) > PAGE:
        raise ValueError(f"the credential {name} is too long: {len(value)} bytes")
    return data


def file_names(credentials: Mapping[str, bytes]) -> list[str]:
    """Returns the names of the tables' files in the machine's directory."""
    return [f"credential-{number}.smbios" for number in range(len(credentials))]


def write(credentials: Mapping[str, bytes], directory: Path) -> None:
    """Writes the tables for QEMU's option `-smbios file=`."""
    names = file_names(credentials)
    for number, (name, item) in enumerate(zip(names, credentials.items(), strict=True)):
        (directory / name).write_bytes(table(number, *item))


def room(name: str) -> int:
    """Returns the greatest size of a credential called `name`, in bytes."""
    return (PAGE - len(table(0, name, b""))) // 4 * 3

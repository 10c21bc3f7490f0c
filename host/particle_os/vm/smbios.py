"""Credentials for a guest's systemd, as SMBIOS tables (System Management BIOS 3.7, 7.12: type 11).

Each credential gets a table of its own: systemd before version 257 reads one memory page of a
table and no more, whatever follows (https://github.com/systemd/systemd/pull/33539).
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
    """The table that carries one credential; `number` tells it from the others.

    Raises ValueError when it would not fit into a page.
    """
    text = f"io.systemd.credential.binary:{name}={base64.b64encode(value).decode('ascii')}"
    # Type, length of this header, handle, count of strings; then the strings, each ended by a zero
    # byte, and one more.
    header = struct.pack("<BBHB", OEM_STRINGS, 5, FIRST_HANDLE + number, 1)
    data = header + text.encode() + b"\0\0"
    if len(data) > PAGE:
        raise ValueError(f"the credential {name} is too long: {len(value)} bytes")
    return data


def file_names(credentials: Mapping[str, bytes]) -> list[str]:
    """The files that the tables lie in, below the machine's directory."""
    return [f"credential-{number}.smbios" for number in range(len(credentials))]


def write(credentials: Mapping[str, bytes], directory: Path) -> None:
    """Writes the tables for QEMU's option `-smbios file=`."""
    names = file_names(credentials)
    for number, (name, item) in enumerate(zip(names, credentials.items(), strict=True)):
        (directory / name).write_bytes(table(number, *item))


def room(name: str) -> int:
    """How many bytes a credential of this name may have."""
    return (PAGE - len(table(0, name, b""))) // 4 * 3

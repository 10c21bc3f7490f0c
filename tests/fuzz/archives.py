"""Makes tar archives and packages, and makes the checksums of mutated ones right."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

BLOCK = 512
MARK = b"\0--data--\0"
PROGRAM = b"\x7fELF\x02\x01" + bytes(10) + b"\x02\0\x3e\0" + bytes(100)
CONTROL = b"Package: a\nVersion: 1\nArchitecture: amd64\nDescription: d\n with \xc3\xa4\n"


def tar(files: Mapping[str, bytes | str], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar archive; a text is the target of a link, and a name with a final slash a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, bufsize=BLOCK) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            elif name.endswith("/"):
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    # Two blocks of zeros end the archive; the rest only fills it up.
    end = len(buffer.getvalue().rstrip(b"\0"))
    return buffer.getvalue()[: end - end % -BLOCK + 2 * BLOCK]


def deb(control: bytes, data: bytes, data_name: bytes = b"data.tar") -> bytes:
    """A package (deb(5)); with uncompressed members, as the product writes it."""
    parts = ((b"debian-binary", b"2.0\n"), (b"control.tar", control), (data_name, data))
    return b"!<arch>\n" + b"".join(
        b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name, 0, 0, 0, 0o100644, len(part))
        + part
        + b"\n" * (len(part) % 2)
        for name, part in parts
    )


def with_checksums(data: bytes) -> bytes:
    """Gives each header of a tar archive in `data` its checksum."""
    result = bytearray(data)
    place = -1
    while (place := data.find(b"ustar", place + 1)) >= 0:
        start = place - 257
        if start < 0 or start + BLOCK > len(data):
            continue
        header = result[start : start + BLOCK]
        header[148:156] = b" " * 8
        result[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(result)

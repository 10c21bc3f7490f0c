"""Applies the lowest layer of a container image with GNU tar, as far as the layer is plain.

An emulated interpreter takes long to make files, and the lowest layer has most of an image's files.
In an empty tree, tar makes the same files as `layers` under three conditions: no name is repeated,
no link is followed, and every program reads the headers alike. This module passes members to tar
while these conditions hold. `layers` applies the rest, from the first member that breaks one.

tar(5): the headers of pax(1) in POSIX.1-2008 and of GNU tar (tar.h in its manual).
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.target.command import PIPE_BYTES, TAR_RECORDS
from particle_agent.unpack import layers
from particle_agent.unpack.layers import HEADER_LIMIT, WHITEOUT, Rest

BLOCK = 512
CHUNK = 1 << 18
END = bytes(2 * BLOCK)
REGULAR, HARD_LINK, SYMBOLIC_LINK, DIRECTORY = b"0", b"1", b"2", b"5"
KINDS = (REGULAR, HARD_LINK, SYMBOLIC_LINK, b"3", b"4", DIRECTORY, b"6")
PAX, LONG_NAME, LONG_LINK = b"x", b"L", b"K"
MAGIC_POSIX, MAGIC_GNU = b"ustar\x0000", b"ustar  \x00"
OCTAL = re.compile(rb" *[0-7]+[ \0]*")
# The records of pax(1) that tar and `layers` read alike.
TIMES_AND_NAMES = (b"mtime", b"atime", b"ctime", b"uname", b"gname")
CAPABILITY = b"SCHILY.xattr.security.capability"
NUMBER = re.compile(rb"[0-9]{1,11}(\.[0-9]{1,9})?")
# limits.h
NAME_MAX, PATH_MAX = 255, 4096


def apply(layer: IO[bytes], root: Path) -> None:
    """Applies a layer to the empty tree `root`. In all other respects it is `layers.apply`."""
    plain, rest = _extract(layer, root)
    directories = [root / os.fsdecode(name) for name in plain.directories]
    others = [root / os.fsdecode(name) for name in (*plain.files, *plain.others)]
    layers.apply(cast(IO[bytes], rest), root, directories, others)


@dataclass
class _Plain:
    """The names of the members that tar has made, without slashes around them.

    The root, b"", is among the directories if a member describes it.
    """

    directories: set[bytes] = field(default_factory=set)
    files: set[bytes] = field(default_factory=set)
    others: set[bytes] = field(default_factory=set)


def _extract(layer: IO[bytes], root: Path) -> tuple[_Plain, Rest]:
    """Extracts the plain members at the start of a tar stream into the empty tree `root`.

    Returns their names, and the rest of the stream from the next member on. Raises StageError when
    tar refuses a member or the stream ends within a member, and EnvironmentFailed when the disk is
    full.
    """
    argv = ["tar", "--extract", "--file=-", f"--directory={root}", "--numeric-owner"]
    argv += [TAR_RECORDS]
    argv += ["--same-permissions", "--xattrs", "--xattrs-include=*", "--delay-directory-restore"]
    # Plain members never lead out of the tree, so --absolute-names is safe. Without it, tar makes
    # placeholder files for links, and loses the times of directories with two spellings.
    argv += ["--warning=no-timestamp", "--absolute-names"]
    found = _Plain()
    # A file for the messages: a pipe would fill up when tar prints one for each member.
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            argv, PIPE_BYTES, stdin=subprocess.PIPE, stderr=complaints, pipesize=PIPE_BYTES
        ) as tar,
    ):
        assert tar.stdin is not None
        try:
            rest = _forward(layer, root, found, tar.stdin)
            tar.stdin.write(END)
            tar.stdin.close()
        except BrokenPipeError:
            rest = Rest(b"", layer)
            with suppress(BrokenPipeError):
                tar.stdin.close()
        except BaseException:
            tar.kill()
            # Closing flushes the buffer, which fails without being the cause of the error.
            with suppress(BrokenPipeError):
                tar.stdin.close()
            raise
        if tar.wait() != 0:
            complaints.seek(0)
            _raise_failure(complaints.read(65536).decode("utf-8", "replace"))
    return found, rest


def _raise_failure(complaint: str) -> None:
    if "No space left" in complaint:
        raise EnvironmentFailed(
            "the image does not fit on the scratch disk",
            hint="Give the scratch disk more room with --scratch-size.",
        )
    raise StageError("tar cannot unpack a layer of the image", tail=complaint.splitlines())


def _forward(layer: IO[bytes], root: Path, found: _Plain, sink: IO[bytes]) -> Rest:
    """Passes the plain members to `sink`. Returns the stream after them."""
    while True:
        headers, member = _member(layer)
        if not headers and (found.directories or found.files or found.others):
            # The archive lacks its end marker, which is tolerable after at least one member.
            return Rest(END, layer)
        if member is None or not _take(member, found) or not _fits(member, root):
            return Rest(headers, layer)
        sink.write(headers)
        left = -(-member.size // BLOCK) * BLOCK
        while left:
            chunk = layer.read(min(left, CHUNK))
            if not chunk:
                raise StageError(
                    "a layer of the image is no complete tar archive: it ends too early"
                )
            sink.write(chunk)
            left -= len(chunk)


@dataclass
class _TarHeader:
    """The fields of a member's headers. The names are unchanged."""

    kind: bytes
    name: bytes
    link: bytes
    size: int


def _member(layer: IO[bytes]) -> tuple[bytes, _TarHeader | None]:
    """The bytes of the next member's headers, and its fields or None if it is not plain."""
    seen = b""
    given: dict[bytes, bytes] = {}
    while True:
        block = _read(layer, BLOCK)
        seen += block
        fields = _header(block)
        if fields is None:
            return seen, None
        if fields.kind in KINDS:
            name, link = given.get(b"path", fields.name), given.get(b"linkpath", fields.link)
            return seen, _TarHeader(fields.kind, name, link, fields.size)
        if fields.kind not in (PAX, LONG_NAME, LONG_LINK) or fields.size > HEADER_LIMIT:
            return seen, None
        data = _read(layer, -(-fields.size // BLOCK) * BLOCK)
        seen += data
        more = _extension(fields.kind, data[: fields.size])
        # Programs differ in which of two equal keys they use.
        if more is None or given.keys() & more.keys():
            return seen, None
        given.update(more)


def _read(layer: IO[bytes], size: int) -> bytes:
    """Reads `size` bytes, or fewer at the end of the stream."""
    data = layer.read(size)
    while len(data) < size and (more := layer.read(size - len(data))):
        data += more
    return data


def _header(block: bytes) -> _TarHeader | None:
    """The fields of a header that all programs read alike; None for another header."""
    if len(block) != BLOCK:
        return None
    magic, prefix, numbers = block[257:265], block[345:500], []
    for start, end in ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148), (148, 156)):
        if not OCTAL.fullmatch(block[start:end]):
            return None
        numbers.append(int(block[start:end].rstrip(b" \0"), 8))
    size, checksum = numbers[3], numbers[5]
    if sum(block) - sum(block[148:156]) + 8 * ord(" ") != checksum:
        return None
    if magic not in (MAGIC_POSIX, MAGIC_GNU) or (magic == MAGIC_GNU and any(prefix)):
        return None
    name, link = _text(block[:100]), _text(block[157:257])
    if above := _text(prefix):
        name = above + b"/" + name
    kind = block[156:157]
    return _TarHeader(REGULAR if kind == b"\0" else kind, name, link, size)


def _text(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def _extension(kind: bytes, data: bytes) -> dict[bytes, bytes] | None:
    """The records of an extension header; None when not all programs understand them."""
    if kind != PAX:
        name = data.removesuffix(b"\0")
        return None if b"\0" in name else {b"path" if kind == LONG_NAME else b"linkpath": name}
    records: dict[bytes, bytes] = {}
    while data:
        length, space, _ = data[:12].partition(b" ")
        if not space or not length.isdigit() or length.startswith(b"0"):
            return None
        record, data = data[: int(length)], data[int(length) :]
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if len(record) != int(length) or not record.endswith(b"\n") or not equals or key in records:
            return None
        if not _is_understood(key, value):
            return None
        records[key] = value
    return records


def _is_understood(key: bytes, value: bytes) -> bool:
    if key in (b"path", b"linkpath"):
        return value != b"" and b"\0" not in value
    if key in (b"mtime", b"atime", b"ctime"):
        return NUMBER.fullmatch(value) is not None
    return key in TIMES_AND_NAMES or key == CAPABILITY


def _fits(member: _TarHeader, root: Path) -> bool:
    """Whether the disk has space for the member. If not, `layers` reports it."""
    if member.size <= CHUNK:
        return True
    disk = os.statvfs(root)
    return member.size <= disk.f_bavail * disk.f_frsize


def _take(member: _TarHeader, found: _Plain) -> bool:
    """Adds a plain member to `found`. Returns whether it is plain.

    A plain member is new, and its directory is an earlier member.
    """
    if member.kind != REGULAR and member.size:
        return False
    name = _plain_name(member.name, directory=member.kind == DIRECTORY)
    if name is None:
        return False
    if name == b"" and member.kind != DIRECTORY:
        return False
    if name in found.directories or name in found.files or name in found.others:
        return False
    above = name.rpartition(b"/")[0]
    if above and above not in found.directories:
        return False
    if member.kind == SYMBOLIC_LINK and not 0 < len(member.link) < PATH_MAX:
        return False
    linked = _plain_name(member.link, directory=False)
    if member.kind == HARD_LINK and linked not in found.files:
        return False
    kinds = {DIRECTORY: found.directories, REGULAR: found.files, HARD_LINK: found.files}
    kinds.get(member.kind, found.others).add(name)
    return True


def _plain_name(name: bytes, *, directory: bool) -> bytes | None:
    """The name without a leading "./" and, for a directory, a final slash.

    None for a name that leads out of the tree, is a whiteout, or could confuse tar.
    """
    if name in (b".", b"./"):
        return b""
    name = name.removeprefix(b"./")
    if directory:
        name = name.removesuffix(b"/")
    if len(name) >= PATH_MAX or any(character in name for character in b"\n\\"):
        return None
    for part in name.split(b"/"):
        if part in (b"", b".", b"..") or part.startswith(WHITEOUT.encode()):
            return None
        if len(part) > NAME_MAX:
            return None
    return name

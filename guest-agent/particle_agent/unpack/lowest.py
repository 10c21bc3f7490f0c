"""The lowest layer of a container image: GNU tar extracts it as far as it is plain.

Making each file takes long in an emulated interpreter, and the lowest layer holds most of them.
Into an empty tree tar writes the same as `layers`, provided that no name comes twice, no link is
followed and no header means different things to different programs. A member is handed to tar only
when that is certain; from the first one on that is not so, `layers` does the rest.

tar(5): the header of pax(1) in POSIX.1-2008, and that of GNU tar (tar.h in its manual).
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
from particle_agent.unpack.layers import HEADER_LIMIT, WHITEOUT

BLOCK = 512
CHUNK = 1 << 18
END = bytes(2 * BLOCK)
REGULAR, HARD_LINK, SYMBOLIC_LINK, DIRECTORY = b"0", b"1", b"2", b"5"
KINDS = (REGULAR, HARD_LINK, SYMBOLIC_LINK, b"3", b"4", DIRECTORY, b"6")
PAX, LONG_NAME, LONG_LINK = b"x", b"L", b"K"
MAGIC_POSIX, MAGIC_GNU = b"ustar\x0000", b"ustar  \x00"
OCTAL = re.compile(rb" *[0-7]+[ \0]*")
# What a record of pax(1) may change that both sides take alike.
TIMES_AND_NAMES = (b"mtime", b"atime", b"ctime", b"uname", b"gname")
CAPABILITY = b"SCHILY.xattr.security.capability"
NUMBER = re.compile(rb"[0-9]{1,11}(\.[0-9]{1,9})?")
# limits.h
NAME_MAX, PATH_MAX = 255, 4096


def apply(layer: IO[bytes], root: Path) -> None:
    """Applies a layer to the empty tree `root`; in all else as `layers.apply`."""
    plain, rest = _extract(layer, root)
    directories = [root / os.fsdecode(name) for name in plain.directories]
    others = [root / os.fsdecode(name) for name in (*plain.files, *plain.others)]
    layers.apply(cast(IO[bytes], rest), root, directories, others)


@dataclass
class _Plain:
    """What tar was given: the names that it made, without slashes around them.

    The root, b"", is among the directories when a member describes it.
    """

    directories: set[bytes] = field(default_factory=set)
    files: set[bytes] = field(default_factory=set)
    others: set[bytes] = field(default_factory=set)


class _Rest:
    """A stream with the bytes before it that were read from it too early."""

    def __init__(self, before: bytes, stream: IO[bytes]) -> None:
        self._before = before
        self._stream = stream

    def read(self, size: int) -> bytes:
        if not self._before:
            return self._stream.read(size)
        taken, self._before = self._before[:size], self._before[size:]
        return taken


def _extract(layer: IO[bytes], root: Path) -> tuple[_Plain, _Rest]:
    """Extracts the plain members at the start of a tar stream into the empty tree `root`.

    Returns what they were, and the rest of the stream, from the next member on. Raises StageError
    when tar refuses them or the stream ends in the middle of one, EnvironmentFailed when the disk
    is full.
    """
    argv = ["tar", "--extract", "--file=-", f"--directory={root}", "--numeric-owner"]
    argv += [TAR_RECORDS]
    argv += ["--same-permissions", "--xattrs", "--xattrs-include=*", "--delay-directory-restore"]
    # No name leads out of the tree and no link is followed. Without this, tar first makes files in
    # place of links, and loses the times of directories that two members spell in two ways.
    argv += ["--warning=no-timestamp", "--absolute-names"]
    found = _Plain()
    # A pipe would be full when tar complains of each member.
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
            rest = _Rest(b"", layer)
            with suppress(BrokenPipeError):
                tar.stdin.close()
        except BaseException:
            tar.kill()
            # What waits in the buffer has nowhere to go, and is not what went wrong.
            with suppress(BrokenPipeError):
                tar.stdin.close()
            raise
        if tar.wait() != 0:
            complaints.seek(0)
            _tell(complaints.read(65536).decode("utf-8", "replace"))
    return found, rest


def _tell(complaint: str) -> None:
    if "No space left" in complaint:
        raise EnvironmentFailed(
            "the image does not fit on the scratch disk",
            hint="Give the scratch disk more room with --scratch-size.",
        )
    raise StageError("tar cannot unpack a layer of the image", tail=complaint.splitlines())


def _forward(layer: IO[bytes], root: Path, found: _Plain, sink: IO[bytes]) -> _Rest:
    """Hands plain members to `sink`; returns what follows them."""
    while True:
        headers, member = _member(layer)
        if not headers and (found.directories or found.files or found.others):
            # Nothing says that the archive ends, but it does; without a member it is none.
            return _Rest(END, layer)
        if member is None or not _take(member, found) or not _fits(member, root):
            return _Rest(headers, layer)
        sink.write(headers)
        left = -(-member.size // BLOCK) * BLOCK
        while left:
            chunk = layer.read(min(left, CHUNK))
            if not chunk:
                raise StageError("a layer of the image is no whole tar archive: it ends too early")
            sink.write(chunk)
            left -= len(chunk)


@dataclass
class _TarHeader:
    """What the headers of one member say; names as they stand there."""

    kind: bytes
    name: bytes
    link: bytes
    size: int


def _member(layer: IO[bytes]) -> tuple[bytes, _TarHeader | None]:
    """The headers of the next member, as they are; None for one that is not plain."""
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
        told = _told(fields.kind, data[: fields.size])
        # Two that say the same: which one holds is not the same to all.
        if told is None or given.keys() & told.keys():
            return seen, None
        given.update(told)


def _read(layer: IO[bytes], size: int) -> bytes:
    """Up to `size` bytes; fewer only at the end."""
    data = layer.read(size)
    while len(data) < size and (more := layer.read(size - len(data))):
        data += more
    return data


def _header(block: bytes) -> _TarHeader | None:
    """A header that all programs read alike."""
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


def _told(kind: bytes, data: bytes) -> dict[bytes, bytes] | None:
    """What a header that goes before a member says of it; None for what not all understand."""
    if kind != PAX:
        name = data.removesuffix(b"\0")
        return None if b"\0" in name else {b"path" if kind == LONG_NAME else b"linkpath": name}
    told: dict[bytes, bytes] = {}
    while data:
        length, space, _ = data[:12].partition(b" ")
        if not space or not length.isdigit() or length.startswith(b"0"):
            return None
        record, data = data[: int(length)], data[int(length) :]
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if len(record) != int(length) or not record.endswith(b"\n") or not equals or key in told:
            return None
        if not _is_understood(key, value):
            return None
        told[key] = value
    return told


def _is_understood(key: bytes, value: bytes) -> bool:
    if key in (b"path", b"linkpath"):
        return value != b"" and b"\0" not in value
    if key in (b"mtime", b"atime", b"ctime"):
        return NUMBER.fullmatch(value) is not None
    return key in TIMES_AND_NAMES or key == CAPABILITY


def _fits(member: _TarHeader, root: Path) -> bool:
    """Whether the disk has the room; `layers` says it when it has not."""
    if member.size <= CHUNK:
        return True
    disk = os.statvfs(root)
    return member.size <= disk.f_bavail * disk.f_frsize


def _take(member: _TarHeader, found: _Plain) -> bool:
    """Whether a member is plain, being new in a directory that came before it; notes it then."""
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
    """A name without what may stand around it; None when it is not that of a file in the tree."""
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

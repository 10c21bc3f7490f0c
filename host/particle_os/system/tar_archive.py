"""Reads the members of a tar archive of any origin, in constant memory and bounded time.

Python's tarfile has no limits: it reads a long name of 3 GiB, or the map of a sparse file, into
memory. Formats: pax(1) of POSIX.1-2017 ("ustar Interchange Format", "pax Extended Header"), and
"Basic Tar Format" in the manual of GNU tar.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from particle_os.system import process
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular

BLOCK = 512
CHUNK = 1 << 16
MEMBERS = 100_000
# In bytes: one extended header (a long name, or attributes), and all of them together.
HEADER_LIMIT, HEADERS_LIMIT = 1 << 16, 16 << 20
# Archives of systems shrink to a fifth, and archives of zeros to less than a thousandth.
RATIO, SMALL = 64, 512 << 20
SKIPPED_FRAME = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
# xz needs up to 65 MiB for the archives that `xz -9` makes.
XZ_MEMORY = 128 << 20
_LONG_NAME, _EXTENDED = b"L", b"x"
_GLOBAL, _PLACES = b"g", (b"path", b"linkpath", b"size")
_OTHER_HEADERS = b"KXNV"
# Links, devices, directories and FIFOs have no content, whatever size their header gives.
_WITHOUT_CONTENT = b"123456"
_REGULAR = b"0\x007S"
_SPARSE = b"S"


class Excessive(tarfile.TarError):
    """An archive exceeds a limit."""


@dataclass(frozen=True)
class Member:
    """A member of an archive; `size` is the number of bytes of its content."""

    name: str
    size: int
    regular: bool
    sparse: bool


class Archive:
    """A tar archive that is read once, from its start to its end.

    Iteration yields the members; `read` returns content of the latest one. Both raise TarError,
    also when the archive exceeds a limit, and DeadlineExceeded. `limit` bounds the bytes to read.
    """

    def __init__(self, stream: BinaryIO, limit: int, deadline: Deadline) -> None:
        self._stream = stream
        self._limit = limit
        self._deadline = deadline
        self._headers = 0
        self._begun = False
        # The bytes of the latest member that have not been read, and the padding after them.
        self._content, self._padding = 0, 0

    def __iter__(self) -> Iterator[Member]:
        for _ in range(MEMBERS):
            member = self._next()
            if member is None:
                return
            yield member
        raise Excessive(f"it has more than {MEMBERS} members")

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the latest member's content; none after its end."""
        data = self._exactly(min(size, self._content))
        self._content -= len(data)
        return data

    def _next(self) -> Member | None:
        """The next member; None after the last one."""
        self._skip(self._content + self._padding)
        self._content = self._padding = 0
        name: bytes | None = None
        size: int | None = None
        sparse = False
        while (header := self._block()) is not None:
            kind, length = header[156:157], _number(header[124:136])
            _check(header)
            if kind == _LONG_NAME:
                name = self._extension(length).rstrip(b"\0")
            elif kind == _EXTENDED:
                records = _records(self._extension(length))
                name = records.get(b"path", name)
                size = int(records[b"size"]) if b"size" in records else size
                sparse = sparse or any(key.startswith(b"GNU.sparse") for key in records)
            elif kind == _GLOBAL:
                # It applies to all members that follow. No archive of a system needs one of these.
                records = _records(self._extension(length))
                if any(key in _PLACES or key.startswith(b"GNU.sparse") for key in records):
                    raise tarfile.ReadError("a global header gives names or sizes")
            elif kind in _OTHER_HEADERS:
                self._extension(length)
            else:
                member = self._begin(header, name, length if size is None else size)
                return replace(member, sparse=True) if sparse else member
        return None

    def _begin(self, header: bytes, name: bytes | None, size: int) -> Member:
        kind = header[156:157]
        text = (_name(header) if name is None else name).decode("utf-8", "surrogateescape")
        if kind in _WITHOUT_CONTENT or (kind in _REGULAR and text.endswith("/")):
            size = 0
        if size > self._limit:
            raise Excessive(f"{text[:100]!r} alone has {size} bytes")
        self._content, self._padding = size, -size % BLOCK
        if kind == _SPARSE:
            self._skip_map(header)
        return Member(text, size, kind in _REGULAR, kind == _SPARSE)

    def _skip_map(self, header: bytes) -> None:
        """Skips the blocks that continue the map of a sparse file in GNU's older format."""
        more = header[482]
        while more:
            self._charge(BLOCK)
            more = self._exactly(BLOCK)[504]

    def _extension(self, length: int) -> bytes:
        """The content of an extended header of `length` bytes."""
        if length > HEADER_LIMIT:
            raise Excessive(f"an extended header has {length} bytes")
        self._charge(max(length, BLOCK))
        data = self._exactly(length)
        self._skip(-length % BLOCK)
        return data

    def _charge(self, length: int) -> None:
        self._headers += length
        if self._headers > HEADERS_LIMIT:
            raise Excessive(f"its extended headers have more than {HEADERS_LIMIT} bytes")

    def _block(self) -> bytes | None:
        """The next header; None at the end of the archive, where the block of zeros may lack."""
        block = self._read(BLOCK)
        if not any(block) and (block or self._begun):
            return None
        self._begun = True
        if len(block) < BLOCK:
            raise tarfile.ReadError("unexpected end of data")
        return block

    def _exactly(self, length: int) -> bytes:
        data = self._read(length)
        if len(data) < length:
            raise tarfile.ReadError("unexpected end of data")
        return data

    def _skip(self, length: int) -> None:
        while length:
            length -= len(self._exactly(min(length, CHUNK)))

    def _read(self, length: int) -> bytes:
        self._deadline.remaining()
        data = self._stream.read(min(length, self._limit + 1))
        self._limit -= len(data)
        if self._limit < 0:
            raise Excessive("it unpacks to many times its size")
        return data


def _check(header: bytes) -> None:
    """Raises ReadError unless the header has its checksum."""
    rest = header[:148] + b" " * 8 + header[156:]
    if _number(header[148:156]) != sum(rest):
        raise tarfile.ReadError("invalid header")


def _number(field: bytes) -> int:
    """A number in octal digits, or, in GNU's format, in the bytes after a set bit."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    if not all(digit in b"01234567" for digit in digits):
        raise tarfile.ReadError("invalid header")
    return int(digits or b"0", 8)


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: LENGTH, a blank, KEY=VALUE and a newline."""
    found: dict[bytes, bytes] = {}
    place = 0
    while place < len(data):
        digits, _, _ = data[place : place + 8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = data[place + len(digits) + 1 : place + length].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise tarfile.ReadError("invalid header")
        found[key] = value[:-1]
        place += length
    if not found.get(b"size", b"0").isdigit() or len(found.get(b"size", b"")) > 19:
        raise tarfile.ReadError("invalid header")
    return found


def check(stream: BinaryIO, size: int, deadline: Deadline) -> None:
    """Raises TarError when tarfile could take much memory or time for this archive of `size` bytes.

    The position in the stream does not change.
    """
    place = stream.tell()
    for member in Archive(stream, size, deadline):
        if member.sparse:
            raise Excessive(f"{member.name[:100]!r} is a sparse file")
    stream.seek(place)


def most_unpacked(size: int) -> int:
    """The limit of the unpacked bytes of an archive of `size` bytes."""
    return RATIO * size + SMALL


@contextmanager
def opened(path: Path, deadline: Deadline, limit: int | None = None) -> Iterator[Archive]:
    """Opens a tar archive, plain or compressed (gzip, bzip2, xz, lz4, zstd).

    The archive may unpack to at most `limit` bytes, by default to `RATIO` times the size of its
    file and `SMALL` bytes more. Raises OSError, TarError.
    """
    with open_regular(path) as file:
        limit = limit or most_unpacked(file.seek(0, io.SEEK_END))
        file.seek(0)
        magic = file.read(6)
        if not magic:
            raise tarfile.ReadError("empty file")
        file.seek(0)
        try:
            with _decompressed(path, _Watched(file, deadline), magic) as stream:
                yield Archive(stream, limit, deadline)
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise tarfile.ReadError(f"the compressed data is damaged: {error}") from error


@contextmanager
def _decompressed(path: Path, watched: _Watched, magic: bytes) -> Iterator[BinaryIO]:
    file = cast(BinaryIO, watched)
    if magic.startswith(b"\x1f\x8b"):
        with gzip.open(file) as stream:
            yield cast(BinaryIO, stream)
    elif magic.startswith(b"BZh"):
        with bz2.open(file) as stream:
            yield cast(BinaryIO, stream)
    elif magic.startswith(b"\xfd7zXZ"):
        yield io.BufferedReader(_Xz(file), CHUNK)
    elif program := _program(magic):
        if shutil.which(program[0]) is None:
            raise tarfile.ReadError(f"{program[0]} has compressed it, and is not installed")
        argv: list[str | Path] = [*program, path]
        within = Confinement(reads=(path,))
        with process.started(argv, within=within, stderr=subprocess.DEVNULL) as decompressor:
            yield process.output(decompressor, watched.deadline)
    else:
        yield file


def unpacker(path: Path) -> str | None:
    """The program that users call to decompress a file; None for one that is not compressed."""
    with open_regular(path) as file:
        magic = file.read(6)
    kinds = ((b"\x1f\x8b", "gunzip"), (b"BZh", "bunzip2"), (b"\xfd7zXZ", "unxz"))
    for start, program in kinds:
        if magic.startswith(start):
            return program
    found = _program(magic)
    return f"un{found[0]}" if found else None


def _program(magic: bytes) -> list[str] | None:
    """The program that decompresses a file with these first bytes."""
    if magic.startswith(b"\x04\x22\x4d\x18"):
        return ["lz4", "--decompress", "--stdout", "--quiet"]
    # zstd files may begin with a frame that is skipped, as those of pzstd do (RFC 8878, 3.1.2).
    if magic.startswith(b"\x28\xb5\x2f\xfd") or SKIPPED_FRAME.match(magic):
        # Without --long, zstd refuses windows of more than 128 MiB.
        return ["zstd", "--decompress", "--stdout", "--quiet", "--long=31"]
    return None


class _Watched:
    """A file whose reader may read on and on without any content, but not past the deadline."""

    def __init__(self, file: BinaryIO, deadline: Deadline) -> None:
        self._file = file
        self.deadline = deadline

    def read(self, size: int = -1) -> bytes:
        self.deadline.remaining()
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)


class _Xz(io.RawIOBase):
    """The content of an xz file. lzma.open has no limit of memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            if self._decoder.eof and not self._begin_stream():
                return 0
            data = self._file.read(CHUNK) if self._decoder.needs_input else b""
            if not data and self._decoder.needs_input:
                raise EOFError("it ends too early")
            if content := self._decoder.decompress(data, len(buffer)):
                buffer[: len(content)] = content
                return len(content)

    def _begin_stream(self) -> bool:
        """Goes on with the next of several streams, which zeros may separate."""
        rest = self._decoder.unused_data.lstrip(b"\0")
        while not rest and (data := self._file.read(CHUNK)):
            rest = data.lstrip(b"\0")
        if not rest:
            return False
        self._file.seek(-len(rest), io.SEEK_CUR)
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)
        return True

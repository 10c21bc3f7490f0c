"""Reads commits and trees: GVariants of any origin, in bounded memory.

https://docs.gtk.org/glib/gvariant-specification-1.0.html and ostree-core.h describe the formats.
The content of an object must have its checksum, so no chain of objects leads back to itself.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from particle_os.errors import UsageError
from particle_os.ostree.files import RepositoryFiles, read

# In bytes. A directory of 60,000 files has less.
OBJECT_LIMIT = 4 << 20
# The members of an array, and the bytes of a file's header: its owner, mode and attributes.
ITEMS_LIMIT, HEADER_LIMIT, SLACK = 100_000, 1 << 20, 1 << 16
CHECKSUM = re.compile(r"[0-9a-f]{64}")
# (a{sv}aya(say)sstayay): the ends of all members but the date and the last one.
COMMIT_ENDS = 6


class BadObject(UsageError):
    """An object is missing, damaged, or of another form."""


@dataclass(frozen=True)
class Commit:
    """A commit. `date` is in seconds since 1970, `texts` are the texts of its metadata.

    `root` is the checksum of the mode of the top directory `tree`.
    """

    checksum: str
    parent: str | None
    subject: str
    date: int
    tree: str
    root: str
    texts: Mapping[str, str]

    @property
    def version(self) -> str | None:
        return self.texts.get("version")


@dataclass(frozen=True)
class TreeDirectory:
    """A directory: the checksums of its files, and those of its directories and of their modes."""

    files: Mapping[str, str]
    directories: Mapping[str, tuple[str, str]]


EMPTY = TreeDirectory({}, {})


def object_of(files: RepositoryFiles, checksum: str, kind: str) -> bytes:
    """The content of a commit or tree. Raises BadObject."""
    name = f"objects/{checksum[:2]}/{checksum[2:]}.{kind}"
    data = read(files, name, OBJECT_LIMIT) if CHECKSUM.fullmatch(checksum) else None
    if data is None:
        raise BadObject(
            f"the repository lacks the object {checksum}.{kind}, or it has more than "
            f"{OBJECT_LIMIT} bytes"
        )
    if hashlib.sha256(data).hexdigest() != checksum:
        raise BadObject(f"the object {checksum}.{kind} of the repository is damaged")
    return data


def commit(files: RepositoryFiles, checksum: str) -> Commit:
    """A commit of the repository. Raises BadObject."""
    data = object_of(files, checksum, "commit")
    metadata, parent, related, subject, body, tree = _ends(data, COMMIT_ENDS)
    date = _aligned(body)
    return Commit(
        checksum=checksum,
        parent=data[metadata:parent].hex() or None,
        subject=_text(data[related:subject]),
        date=int.from_bytes(data[date : date + 8], "big"),
        tree=data[date + 8 : tree].hex(),
        root=data[tree : len(data) - COMMIT_ENDS * _width(data)].hex(),
        texts=dict(_texts(data[:metadata])),
    )


def directory(files: RepositoryFiles, checksum: str) -> TreeDirectory:
    """A directory of a commit. Raises BadObject."""
    data = object_of(files, checksum, "dirtree")
    (middle,) = _ends(data, 1)
    found, below = {}, {}
    for item in _items(data[:middle], 1):
        (name,) = _ends(item, 1)
        found[_text(item[:name])] = item[name : -_width(item)].hex()
    for item in _items(data[middle : -_width(data)], 1):
        name, tree = _ends(item, 2)
        rest = item[tree : -2 * _width(item)]
        below[_text(item[:name])] = item[name:tree].hex(), rest.hex()
    return TreeDirectory(found, below)


def content(files: RepositoryFiles, checksum: str, limit: int) -> bytes:
    """The first `limit` bytes of a regular file of a repository of the mode `archive`."""
    found = files.open(f"objects/{checksum[:2]}/{checksum[2:]}.filez")
    if found is None:
        raise BadObject(f"the repository lacks the object {checksum}.filez")
    with found[0] as stream:
        # The size of the header, and padding; the header; and the compressed content.
        header = int.from_bytes(stream.read(8)[:4], "big")
        if header > HEADER_LIMIT:
            raise BadObject("an object of the repository is malformed")
        stream.read(header)
        # Bytes that do not shrink take a little more room.
        packed = stream.read(limit + limit // 1000 + SLACK)
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limit)
    except zlib.error as error:
        raise BadObject(f"the object {checksum}.filez of the repository is damaged") from error


def _texts(data: bytes) -> Iterator[tuple[str, str]]:
    """The texts in a dictionary of type a{sv}."""
    for item in _items(data, 8):
        (name,) = _ends(item, 1)
        value, _, kind = item[_aligned(name) : -_width(item)].rpartition(b"\0")
        if kind == b"s":
            yield _text(item[:name]), _text(value)


def _items(data: bytes, alignment: int) -> Iterator[bytes]:
    """The items of an array. The last bytes are the ends of all items."""
    if not data:
        return
    width = _width(data)
    first = int.from_bytes(data[-width:], "little")
    count, rest = divmod(len(data) - first, width)
    if rest or count <= 0:
        raise BadObject("an object of the repository is malformed")
    if count > ITEMS_LIMIT:
        raise BadObject(f"an object of the repository has more than {ITEMS_LIMIT} entries")
    start = 0
    for end in _ends(data, count)[::-1]:
        start = -(-start // alignment) * alignment
        # Otherwise the items overlap, and together have many times the bytes of the object.
        if end < start:
            raise BadObject("an object of the repository is malformed")
        yield data[start:end]
        start = end


def _ends(data: bytes, count: int) -> list[int]:
    """The last `count` offsets of a container, the last one first: the ends of its members."""
    width = _width(data)
    table = data[len(data) - count * width :] if len(data) >= count * width else b""
    found = [
        int.from_bytes(table[place : place + width], "little")
        for place in range(0, len(table), width)
    ][::-1]
    if len(found) != count or any(end > len(data) for end in found):
        raise BadObject("an object of the repository is malformed")
    return found


def _width(data: bytes) -> int:
    """The bytes of an offset in a container."""
    return next(width for width in (1, 2, 4, 8) if len(data) < 1 << 8 * width)


def _aligned(place: int) -> int:
    return -(-place // 8) * 8


def _text(data: bytes) -> str:
    return data.removesuffix(b"\0").decode("utf-8", "replace")

"""Parcels: small files and directories, with their modes, as one text.

A parcel is a list of entries in JSON, compressed, in Base64. An entry has a path, a mode, and a
content or the target of a link.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from particle_os.errors import ParticleError
from particle_os.system.regular_file import open_regular

# Bytes of the content of a parcel, and the entries in it.
LIMIT, ENTRIES_LIMIT = 16 << 20, 10_000
# Bytes of the names and modes of all entries.
NAMES_LIMIT = 4 << 20


class TooLarge(Exception):
    """The content of a parcel is larger than allowed."""


class Unreadable(ParticleError):
    """A parcel is damaged, or names files outside of its directory."""


def pack(files: Iterable[tuple[str, Path]], limit: int = LIMIT) -> str:
    """The parcel with these files, links and directories, by their names in it.

    A directory is packed without its content. Raises OSError and TooLarge.
    """
    entries: dict[str, dict[str, Any]] = {}
    left = limit
    for name, path in files:
        entries[name] = found = _entry(path, left)
        left -= len(found.get("content", ""))
        if len(entries) > ENTRIES_LIMIT:
            raise TooLarge(f"more than {ENTRIES_LIMIT} files")
    named = [{"name": name, **entry} for name, entry in entries.items()]
    return base64.b64encode(zlib.compress(json.dumps(named).encode())).decode()


def _entry(path: Path, left: int) -> dict[str, Any]:
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return {"link": os.readlink(path)}
    if stat.S_ISDIR(status.st_mode):
        return {"directory": True, "mode": mode}
    with open_regular(path, follow=False) as file:
        data = file.read(left + 1)
    text = base64.b64encode(data).decode()
    if len(text) > left:
        raise TooLarge(f"{path} and the files before it")
    return {"mode": mode, "content": text}


def unpack(parcel: str, into: Path, limit: int = LIMIT, *, plain: bool = False) -> None:
    """Writes the files of a parcel into an empty directory. Raises Unreadable and OSError.

    A `plain` parcel has no links. Its files get the mode 644 or 755, and its directories 755.
    """
    entries = list(_entries(parcel, limit))
    if plain and any("link" in entry for entry in entries):
        raise Unreadable("a parcel of files has a link")
    # The links last: no file is written through one.
    for entry in sorted(entries, key=lambda entry: "link" in entry):
        place = into / str(entry["name"])
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if "link" in entry:
            place.symlink_to(str(entry["link"]))
        elif "directory" in entry:
            place.mkdir(mode=0o700, exist_ok=True)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(place, flags, 0o600), "wb") as file:
                file.write(base64.b64decode(entry["content"], validate=True))
            place.chmod(_mode(entry, plain=plain))
    # The modes of directories last: one of them may forbid writing.
    for entry in reversed(entries):
        if "directory" in entry:
            (into / str(entry["name"])).chmod(_mode(entry, plain=plain))


def _mode(entry: dict[str, Any], *, plain: bool) -> int:
    mode: int = entry["mode"] & 0o7777
    if not plain:
        return mode
    return 0o755 if "directory" in entry or mode & stat.S_IXUSR else 0o644


def _entries(parcel: str, limit: int) -> Iterator[dict[str, Any]]:
    try:
        most = 2 * limit + NAMES_LIMIT
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(parcel, validate=True), most)
        found = json.loads(text)
        for entry in found:
            _check(entry)
            yield entry
    except (ValueError, TypeError, KeyError, RecursionError, zlib.error, binascii.Error) as error:
        raise Unreadable("a parcel of files is damaged") from error


def _check(entry: dict[str, Any]) -> None:
    """Raises ValueError, TypeError or KeyError for an entry that no parcel of ours has."""
    name = PurePosixPath(entry["name"])
    if name.is_absolute() or not name.parts or ".." in name.parts or "\0" in str(name):
        raise ValueError("the name leads outside")
    if not {"link", "directory", "content"} & entry.keys():
        raise ValueError("an entry of no kind")
    if "link" not in entry and not isinstance(entry["mode"], int):
        raise ValueError("no mode")
    if "content" in entry:
        base64.b64decode(entry["content"], validate=True)

"""Finds and hashes the files of the host that stages name, and refers to them by their digests.

A stage that goes to the VM holds the digest instead of the path, so that the keys of checkpoints
depend on the content. The files themselves are sent beside the stage.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import hashlib
import os
import re
import stat
import tarfile
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar

from particle_agent.contract.options import ATTACHED_MODE, OnHost, kebab_case
from particle_agent.stages import RecipeStage

from particle_os.documents.annotations import field_types
from particle_os.documents.document import Key, Node
from particle_os.documents.words import unlike_a_path
from particle_os.recipe.files.directories import Few, matching, walk
from particle_os.recipe.files.inside import outside
from particle_os.system.checksum import file_sha256
from particle_os.system.regular_file import open_regular, read_regular

S = TypeVar("S", bound=RecipeStage)
TREE = "tree:"
# Bytes. The host reads the content of a file only up to this size.
LOOKED_AT_LIMIT = 1 << 20
# Takes the key of the value, the code of the problem and its message.
URL = re.compile(r"[a-z][a-z0-9+.-]*://")
# The options that take a URL, beside those that take a file.
DOWNLOADS = {"parent": "parent-download", "source": "download", "debs": "downloads"}
Complain = Callable[[Key, str, str], None]


class NotAttachable(Exception):
    """The file cannot be attached; the text gives the reason."""


@dataclass(frozen=True)
class Attachment:
    """A file, or a directory that is sent as a tar archive.

    `reference` is the kind, ":" and the SHA-256 of the bytes that are sent (see `OnHost`). `size`
    is their number.
    """

    reference: str
    path: Path
    size: int

    def open(self, directory: Path) -> IO[bytes]:
        """Opens the bytes to send; writes the archive of a tree into `directory`.

        Raises OSError, and NotAttachable when the file or the tree has changed.
        """
        if not self.reference.startswith(TREE):
            found = open_regular(self.path)
            if os.fstat(found.fileno()).st_size != self.size:
                found.close()
                raise NotAttachable(f"{self.path} has changed since the recipe was read")
            return found
        archive = directory / "attached.tar"
        with archive.open("wb") as file:
            _pack(self.path, file)
        return archive.open("rb")


@dataclass(frozen=True)
class Origin:
    """Paths are relative to `directory` and must lead into `inside`; None permits every place."""

    directory: Path
    inside: Path | None


def attach(stage: S, origin: Origin, key: Key, complain: Complain) -> tuple[S, list[Attachment]]:
    """The stage with digests instead of paths, and the files that the digests represent.

    `key` is the place of the stage in the recipe. `complain` gets each file that cannot be read.
    """
    found: list[Attachment] = []
    unread: list[str] = []

    def references(path: str, where: Key, marker: OnHost) -> list[str]:
        taken = _taken(path, origin, marker, where, complain)
        found.extend(each for each in taken if each is not None)
        unread.extend(path for each in taken if each is None)
        return [path if each is None else each.reference for each in taken]

    attached = _replaced(stage, type(stage), key, references)
    # Of a file that cannot be read, nothing else is known.
    for place, fault in () if unread else attached.attached_faults():
        complain((*key, *place), "bad-value", fault)
    return attached, found


def look(node: Node, kind: Any, origin: Origin, key: Key, complain: Complain) -> None:
    """Passes to `complain` the unreadable files of a stage that has other problems.

    `kind` is the annotated type that `node` should have, `key` its place in the recipe.
    """
    arguments = typing.get_args(kind)
    value = node.value
    if marker := next((a for a in arguments if isinstance(a, OnHost)), None):
        if isinstance(value, str) and not node.unknown and marker.accepts(value):
            _taken(value, origin, marker, key, complain)
    elif typing.get_origin(kind) is tuple:
        for index, item in enumerate(value if isinstance(value, list) else ()):
            look(item, arguments[0], origin, (*key, index), complain)
    elif typing.get_origin(kind) is typing.Annotated:
        look(node, arguments[0], origin, key, complain)
    elif typing.get_origin(kind) in (typing.Union, types.UnionType):
        for argument in arguments:
            look(node, argument, origin, key, complain)
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        for name, hint in field_types(kind).items():  # type: ignore[arg-type]
            if (spelled := kebab_case(name)) in value:
                look(value[spelled], hint, origin, (*key, spelled), complain)


def _taken(
    name: str, origin: Origin, marker: OnHost, key: Key, complain: Complain
) -> list[Attachment | None]:
    """The attachments that a name stands for, with None in place of one that cannot be read."""
    names = _expanded(name, origin, marker, key, complain)
    few = complain if names == [name] else Few(complain)
    return [_take(each, origin, marker, key, few) for each in names]


def _take(
    name: str, origin: Origin, marker: OnHost, key: Key, complain: Complain
) -> Attachment | None:
    """The attachment that a name refers to; None when it cannot be read."""
    path = origin.directory / name
    shown = unlike_a_path(name) or name
    try:
        if fault := outside(path, origin.inside):
            raise NotAttachable(fault)
        found = _attachment(path, marker)
        if marker.faults is not None and found.size > LOOKED_AT_LIMIT:
            raise NotAttachable(f"is larger than {LOOKED_AT_LIMIT} bytes")
        faults = (
            marker.faults(read_regular(path, LOOKED_AT_LIMIT)) if marker.faults is not None else ()
        )
    except (OSError, NotAttachable) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        if URL.match(name):
            complain(key, "bad-value", f"{shown}: {_no_url(key)}")
        else:
            complain(key, "no-file", f"{shown}: {reason}")
        return None
    for fault in faults:
        complain(key, "bad-file", f"{shown}: {fault}")
    return found


def _no_url(key: Key) -> str:
    """The message about a URL where a file is expected."""
    option = next((part for part in reversed(key) if isinstance(part, str)), "")
    if option in DOWNLOADS:
        return f"a URL; write '{DOWNLOADS[option]}' with its 'url' and 'sha256'"
    return "a URL, where only a file of this machine can stand"


def _expanded(
    name: str, origin: Origin, marker: OnHost, key: Key, complain: Complain
) -> Sequence[str]:
    """The files that the name of several files stands for; other names stand for themselves."""
    if marker.ending is None:
        return [name]
    shown, parts = unlike_a_path(name) or name, Path(name).parts
    plain = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    start, pattern = origin.directory.joinpath(*parts[:plain]), parts[plain:]
    place = origin.directory / name
    try:
        # Nothing outside is listed. What reads the name complains about it.
        if outside(start, origin.inside):
            return [name]
        if not pattern and place.is_dir():
            pattern = (f"*{glob.escape(marker.ending)}",)
        elif not pattern or place.exists():
            return [name]
    except (OSError, ValueError):
        # The name is too long, for example: what reads it says so.
        return [name]
    try:
        if unfit := {"..", "**"}.intersection(pattern):
            raise NotAttachable(f"'{min(unfit)}' cannot be a part of a pattern")
        found = matching(start, pattern, origin.inside)
        if not found:
            raise NotAttachable(f"no file '*{marker.ending}' there")
    except (OSError, NotAttachable) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        complain(key, "no-file", f"{shown}: {reason}")
        return []
    return [os.path.relpath(path, origin.directory) for path in found]


def _replaced(
    value: Any, kind: Any, key: Key, references: Callable[[str, Key, OnHost], list[str]]
) -> Any:
    """`value` of the annotated type `kind` with each `HostFile` in it replaced."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        return None
    if origin is typing.Annotated:
        marker = _marker(kind)
        if marker is not None:
            return references(value, key, marker)[0]
        return _replaced(value, arguments[0], key, references)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        return _replaced(value, inner[0] if len(inner) == 1 else type(value), key, references)
    if origin is tuple and (marker := _marker(arguments[0])) is not None:
        several = [references(v, (*key, i), marker) for i, v in enumerate(value)]
        return tuple(chain.from_iterable(several))
    if origin is tuple:
        return tuple(_replaced(v, arguments[0], (*key, i), references) for i, v in enumerate(value))
    if not dataclasses.is_dataclass(value):
        return value
    changes = {
        name: _replaced(getattr(value, name), hint, (*key, kebab_case(name)), references)
        for name, hint in _of_files(type(value)).items()  # type: ignore[arg-type]
    }
    return dataclasses.replace(value, **changes) if changes else value  # type: ignore[type-var]


@functools.cache
def _of_files(kind: type) -> dict[str, Any]:
    """The fields of a class that can name files of the host, with their annotated types."""
    return {name: hint for name, hint in field_types(kind).items() if _names_files(hint)}


@functools.cache
def _names_files(kind: Any) -> bool:
    """Whether values of an annotated type can name files of the host."""
    if _marker(kind) is not None:
        return True
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return any(map(_names_files, field_types(kind).values()))
    return any(map(_names_files, typing.get_args(kind)))


def _marker(kind: Any) -> OnHost | None:
    """The mark of a type for paths on the host."""
    return next((a for a in typing.get_args(kind) if isinstance(a, OnHost)), None)


def _attachment(path: Path, marker: OnHost) -> Attachment:
    if path.is_dir():
        if not marker.directories:
            raise NotAttachable("is a directory; a file is required")
        digest = _Digest()
        _pack(path, digest)
        return Attachment(f"{TREE}{digest.sha256.hexdigest()}", path, digest.size)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise NotAttachable("is no regular file")
    kind = f"{ATTACHED_MODE}{stat.S_IMODE(status.st_mode):o}" if marker.directories else "sha256"
    return Attachment(f"{kind}:{file_sha256(path)}", path, status.st_size)


class _Digest:
    """A writable file that discards the data; it only counts and hashes the bytes."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return len(data)


def _pack(directory: Path, sink: Any) -> None:
    """Writes a directory and its content as a tar archive; equal trees give equal bytes.

    The archive has modes, but neither owners nor times.
    """
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, _ in chain([(".", True)], walk(directory)):
            path = directory / name
            # A link that the recipe names itself leads to the directory.
            status = path.stat() if name == "." else path.lstat()
            member = tarfile.TarInfo(name)
            member.mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
                archive.addfile(member)
            elif stat.S_ISDIR(status.st_mode):
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif stat.S_ISREG(status.st_mode):
                with open_regular(path, follow=False) as file:
                    member.size = os.fstat(file.fileno()).st_size
                    archive.addfile(member, file)
            else:
                raise NotAttachable(f"holds {name}, which is no file, directory or link")

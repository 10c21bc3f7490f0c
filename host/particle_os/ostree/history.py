"""The history of a ref in a repository, and the difference between two of its commits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from particle_os.errors import UsageError
from particle_os.ostree import objects
from particle_os.ostree.files import RepositoryFiles, read
from particle_os.ostree.objects import CHECKSUM, EMPTY, BadObject, Commit, TreeDirectory
from particle_os.system.deadline import Deadline

HEADS = "refs/heads/"
COMMITS_LIMIT, ENTRIES_LIMIT, SECONDS = 10_000, 2_000_000, 300.0
DATABASE = ("usr", "share", "dpkg", "database", "status")
# In bytes; a system of 10,000 packages has 15 MB.
DATABASE_LIMIT, PACKAGES_LIMIT = 16 << 20, 100_000
# A field that counts, or what ends a stanza.
FIELD = re.compile(rb"^(Package|Architecture|Version|Status): *(.*)$|\n\n+", re.MULTILINE)


@dataclass(frozen=True)
class ChangedPath:
    """A path of a commit that another commit lacks, or has with another content or mode."""

    kind: Literal["A", "D", "M"]
    path: str


def refs(files: RepositoryFiles) -> dict[str, str]:
    """The checksums of the newest commits, by ref."""
    found = {}
    for name in files.names("refs/heads"):
        text = (read(files, name, 100) or b"").decode("ascii", "replace").strip()
        if CHECKSUM.fullmatch(text):
            found[name.removeprefix(HEADS)] = text
    return found


def resolve(files: RepositoryFiles, name: str | None) -> str:
    """The checksum of a commit: of a ref, of a checksum, or of the only ref. Raises UsageError."""
    known = refs(files)
    if name is None:
        if len(known) == 1:
            return next(iter(known.values()))
        raise UsageError(f"the repository has {len(known)} refs", hint=_named(known))
    if name in known:
        return known[name]
    if CHECKSUM.fullmatch(name):
        return name
    raise UsageError(f"the repository has no ref '{name}'", hint=_named(known))


def _named(known: Mapping[str, str]) -> str:
    return f"It has: {', '.join(sorted(known)[:20])}." if known else "It has no ref."


def log(files: RepositoryFiles, checksum: str) -> Iterator[Commit]:
    """The commit and those before it, as far as the repository has them."""
    deadline = Deadline.after(SECONDS, "reading the commits")
    for _ in range(COMMITS_LIMIT):
        deadline.remaining()
        found = objects.commit(files, checksum)
        yield found
        name = f"objects/{(found.parent or '')[:2]}/{(found.parent or '')[2:]}.commit"
        if found.parent is None or (stream := files.open(name)) is None:
            return
        stream[0].close()
        checksum = found.parent


def differences(files: RepositoryFiles, before: Commit, after: Commit) -> Iterator[ChangedPath]:
    """The paths that differ. Raises BadObject for trees with very many entries."""
    left, deadline = ENTRIES_LIMIT, Deadline.after(SECONDS, "comparing the commits")
    waiting = [("", before.tree, after.tree)]
    while waiting:
        deadline.remaining()
        path, one, other = waiting.pop()
        if one == other:
            continue
        old, new = (objects.directory(files, each) if each else EMPTY for each in (one, other))
        left -= sum(len(d.files) + len(d.directories) for d in (old, new))
        if left < 0:
            raise BadObject(f"the commits differ in more than {ENTRIES_LIMIT} files")
        for kind, name in _changed(old, new):
            yield ChangedPath(kind, f"{path}/{name}")
        for name in sorted(old.directories.keys() | new.directories.keys(), reverse=True):
            trees = (d.directories.get(name, ("", ""))[0] for d in (old, new))
            waiting.append((f"{path}/{name}", next(trees), next(trees)))


def _changed(old: TreeDirectory, new: TreeDirectory) -> list[tuple[Literal["A", "D", "M"], str]]:
    """The entries of a directory that differ; a directory differs by its mode."""
    before: dict[str, str] = {**old.files, **{n: m for n, (_, m) in old.directories.items()}}
    after: dict[str, str] = {**new.files, **{n: m for n, (_, m) in new.directories.items()}}
    found: list[tuple[Literal["A", "D", "M"], str]] = []
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            found.append(("A", name))
        elif name not in after:
            found.append(("D", name))
        elif before[name] != after[name]:
            found.append(("M", name))
    return found


def packages(files: RepositoryFiles, commit: Commit) -> dict[str, str]:
    """The versions of the installed packages of a commit; empty without dpkg's database."""
    *above, name = DATABASE
    here = objects.directory(files, commit.tree)
    for part in above:
        if part not in here.directories:
            return {}
        here = objects.directory(files, here.directories[part][0])
    if name not in here.files:
        return {}
    return _installed(objects.content(files, here.files[name], DATABASE_LIMIT + 1))


def _installed(data: bytes) -> dict[str, str]:
    """The versions of the installed packages of dpkg's database. Raises BadObject."""
    if len(data) > DATABASE_LIMIT:
        raise BadObject(f"the database of packages has more than {DATABASE_LIMIT} bytes")
    found: dict[str, str] = {}
    fields: dict[bytes, str] = {}
    stanzas = 0
    for match in chain(FIELD.finditer(data), [None]):
        if match is not None and match[1]:
            fields[match[1]] = match[2].decode("utf-8", "replace")
            continue
        if fields.get(b"Status", "").endswith(" installed") and b"Package" in fields:
            key = f"{fields[b'Package']}:{fields.get(b'Architecture', '')}"
            found[key] = fields.get(b"Version", "")
        stanzas += 1
        if stanzas > PACKAGES_LIMIT:
            raise BadObject(f"the database of packages has more than {PACKAGES_LIMIT} of them")
        fields.clear()
    return found

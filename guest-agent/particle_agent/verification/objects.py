"""Verifies the objects of an OSTree repository, and the files of its deployments.

ostree(1) compares each object with its checksum. The files of a deployment are links to objects of
its commit, so a file that is the same inode as its object is as good as the object.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from particle_agent.disk import reading
from particle_agent.disk.reading import Tree
from particle_agent.ostree.reading import DeployedTree, systems

REPOSITORY = "/ostree/repo"
CHECK_SECONDS, LIST_SECONDS = 600.0, 120.0
OUTPUT_LIMIT, LIST_LIMIT = 1 << 20, 64 << 20
# timeout(1): the time is up. A shell: there is no such program.
TOOK_TOO_LONG, NO_PROGRAM = 124, 127
OBJECT = re.compile(r"(?:object |missing: |fsck )([0-9a-f]{64})")
DEPLOYMENT = re.compile(r"([0-9a-f]{64})\.\d+")
# A line of `ostree ls -R -C`: kind and mode, IDs, size, checksums (a directory has two), path.
LINE = re.compile(r"([-dl])\d+ \d+ \d+ +\d+ ([0-9a-f]{64} )?([0-9a-f]{64}) (/.*)", re.DOTALL)
# An update replaces this directory. The others belong to the machine, or are empty.
COMPARED = "/usr"
SHOWN = 4
CHUNK, LARGEST = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Listed:
    """A file of a commit: `-` is a regular one, `d` a directory, `l` a link."""

    kind: str
    checksum: str


CommitFiles = Mapping[str, Listed]


def check(tree: Tree) -> list[tuple[str, str]]:
    """Checks the repository and the deployments of a physical root. Returns codes and messages."""
    deployed = [system for system in systems(tree, "") if isinstance(system, DeployedTree)]
    place = tree.place(REPOSITORY)
    if tree.root in (system.root for system in deployed) or not deployed:
        return []
    if place is None or not _is_directory(place / "objects"):
        return [("ostree-repository-broken", f"there is no repository in {REPOSITORY}")]
    commits = {system: _commit(place, system) for system in deployed}
    found = list(_check_objects(place, commits))
    for system, commit in commits.items():
        path = "/" + str(system.root.relative_to(tree.root))
        if not commit and not found:
            found.append(("ostree-repository-broken", f"it lacks the commit of {path}"))
        if changed := list(_changed(place, system, commit)):
            found.append(("deployment-changed", f"{path}: {_few(changed)}"))
    return found


def _is_directory(place: Path) -> bool:
    """Whether the path is a directory, and no link to one."""
    try:
        return stat.S_ISDIR(place.lstat().st_mode)
    except OSError:
        return False


def _few(texts: list[str]) -> str:
    more = f", and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def _check_objects(
    place: Path, commits: Mapping[DeployedTree, CommitFiles]
) -> Iterator[tuple[str, str]]:
    """The result of `ostree fsck`, with the names of damaged files."""
    argv = ["ostree", "fsck", "--all", "--quiet", f"--repo={place}"]
    status, printed = reading.output(argv, seconds=CHECK_SECONDS, limit=OUTPUT_LIMIT)
    if status == 0:
        return
    if status == TOOK_TOO_LONG:
        yield "ostree-repository-not-checked", f"ostree took longer than {CHECK_SECONDS:g} s"
        return
    if status == NO_PROGRAM:
        yield "ostree-repository-not-checked", "there is no program ostree"
        return
    names = {
        listed.checksum: path for commit in commits.values() for path, listed in commit.items()
    }
    damaged = dict.fromkeys(OBJECT.findall(printed))
    told = [names.get(checksum, f"object {checksum}") for checksum in damaged]
    message = _few(told) if told else printed.strip().rpartition("\n")[2]
    yield "ostree-repository-broken", message or f"ostree ends with status {status}"


def _commit(place: Path, system: Tree) -> CommitFiles:
    """The files of the commit of a deployment; empty when it cannot be listed."""
    name = DEPLOYMENT.fullmatch(system.root.name)
    if name is None:
        return {}
    argv = ["ostree", "ls", "-R", "-C", f"--repo={place}", name[1], COMPARED]
    status, printed = reading.output(argv, seconds=LIST_SECONDS, limit=LIST_LIMIT)
    if status != 0:
        return {}
    found: dict[str, Listed] = {}
    # A name may contain the end of a line.
    for line in re.split(r"\n(?=[-dl]\d{5} )", printed.removesuffix("\n")):
        if match := LINE.fullmatch(line):
            kind, _, checksum, path = match.groups()
            if kind == "l":
                path = path.removesuffix(f" -> {_text(_object(place, checksum))}")
            found[path] = Listed(kind, checksum)
    return found


def _object(place: Path, checksum: str) -> Path:
    return place / "objects" / checksum[:2] / f"{checksum[2:]}.file"


def _text(link: Path) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None


def _changed(place: Path, system: Tree, commit: CommitFiles) -> Iterator[str]:
    """The files of a deployment that are not those of its commit."""
    children: dict[str, set[str]] = defaultdict(set)
    for path in commit:
        directory, _, name = path.rpartition("/")
        children[directory].add(name)
    for path, listed in commit.items():
        if listed.kind != "d":
            continue
        # No link on the way leads out of the deployment.
        there = system.place(path, follow=False)
        if there != system.root / path.lstrip("/") or not _is_directory(there):
            yield f"{path} is no directory"
            continue
        for name in sorted(set(os.listdir(there)) - children[path]):
            yield f"{path}/{name} is not part of it"
        for name in sorted(children[path]):
            file = commit[f"{path}/{name}"]
            if file.kind != "d" and not _is_same(there / name, _object(place, file.checksum)):
                yield f"{path}/{name} is missing or another one"


def _is_same(file: Path, kept: Path) -> bool:
    """Whether a file is its object: the same inode, or a copy. A lost object is another finding."""
    if not os.path.lexists(kept):
        return True
    try:
        status, wanted = file.lstat(), kept.lstat()
    except OSError:
        return False
    if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
        return True
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(wanted.st_mode):
        return False
    if stat.S_ISLNK(status.st_mode):
        return _text(file) == _text(kept)
    # OSTree shares no empty files, and programs that copy disks may share none.
    return stat.S_ISREG(status.st_mode) and is_copy(file, kept)


def is_copy(one: Path, other: Path) -> bool:
    """Whether two regular files have the same content. Those beyond 1 GiB are not compared."""
    try:
        size = one.stat().st_size
        if size != other.stat().st_size:
            return False
        if size > LARGEST:
            return True
        with one.open("rb") as file, other.open("rb") as copy:
            return all(file.read(CHUNK) == copy.read(CHUNK) for _ in range(0, size, CHUNK))
    except OSError:
        return False

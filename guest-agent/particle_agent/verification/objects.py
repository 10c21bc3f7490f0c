"""Verifies the objects of an OSTree repository, and the files of its deployments.

ostree(1) compares each object with its checksum. The files of a deployment are links to objects of
its commit, so a file that is the same inode as its object is as good as the object.
"""

from __future__ import annotations

import os
import re
import stat
import time
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
CHUNK, LARGEST = 1 << 20, 256 << 20


@dataclass(frozen=True)
class Listed:
    """A file of a commit: `-` is a regular one, `d` a directory, `l` a link."""

    kind: str
    checksum: str


class _NotChecked(Exception):
    """A version has not been compared; the text says why."""


CommitFiles = Mapping[str, Listed]


def check(tree: Tree, *, fresh: bool = False) -> list[tuple[str, str]]:
    """Checks the repository and the deployments of a physical root. Returns codes and messages.

    The objects of a `fresh` disk, which OSTree has just written, are not read again.
    """
    deployed = [system for system in systems(tree, "") if isinstance(system, DeployedTree)]
    place = tree.place(REPOSITORY)
    if not deployed or deployed[0].root == tree.root:
        return []
    if place is None or not _is_directory(place / "objects"):
        return [("ostree-repository-broken", f"there is no repository in {REPOSITORY}")]
    until = time.monotonic() + CHECK_SECONDS
    result = _Fsck(*((0, "") if fresh else _fsck(place)))
    found: list[tuple[str, str]] = []
    # The names of many files are in memory, so look at one version at a time.
    for system in deployed:
        path = "/" + str(system.root.relative_to(tree.root))
        try:
            commit = _commit(place, system)
            result.take_names(commit)
            changed = list(_changed(place, system, commit, until))
        except _NotChecked as unknown:
            found.append(("ostree-repository-not-checked", f"{path}: {unknown}"))
            continue
        if not commit and result.passed:
            found.append(("ostree-repository-broken", f"it lacks the commit of {path}"))
        if changed:
            found.append(("deployment-changed", f"{path}: {_few(changed)}"))
    return [*result.findings(), *found]


def _is_directory(place: Path) -> bool:
    """Whether the path is a directory, and no link to one."""
    try:
        return stat.S_ISDIR(place.lstat().st_mode)
    except OSError:
        return False


def _few(texts: list[str]) -> str:
    more = f", and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


class _Fsck:
    """The result of `ostree fsck`."""

    def __init__(self, status: int, printed: str) -> None:
        self._status, self._printed = status, printed
        objects = OBJECT.findall(printed) if not self.passed else ()
        self._names = {checksum: f"object {checksum}" for checksum in objects}

    @property
    def passed(self) -> bool:
        return self._status == 0

    def take_names(self, commit: CommitFiles) -> None:
        """Learns the names of damaged objects in a commit."""
        for path, listed in commit.items() if self._names else ():
            if listed.checksum in self._names:
                self._names[listed.checksum] = path

    def findings(self) -> Iterator[tuple[str, str]]:
        """The code and the message of the result, if there is a fault."""
        if self._status == TOOK_TOO_LONG:
            yield "ostree-repository-not-checked", f"ostree took longer than {CHECK_SECONDS:g} s"
        elif self._status == NO_PROGRAM:
            yield "ostree-repository-not-checked", "there is no program ostree"
        elif not self.passed:
            last = self._printed.strip().rpartition("\n")[2]
            message = _few(list(self._names.values())) or last
            yield "ostree-repository-broken", message or f"ostree ends with status {self._status}"


def _fsck(place: Path) -> tuple[int, str]:
    argv = ["ostree", "fsck", "--all", "--quiet", f"--repo={place}"]
    return reading.output(argv, seconds=CHECK_SECONDS, limit=OUTPUT_LIMIT)


def _commit(place: Path, system: Tree) -> CommitFiles:
    """The files of the commit of a deployment; empty when it cannot be listed.

    Raises _NotChecked when it has too many files.
    """
    name = DEPLOYMENT.fullmatch(system.root.name)
    if name is None:
        return {}
    argv = ["ostree", "ls", "-R", "-C", f"--repo={place}", name[1], COMPARED]
    status, printed = reading.output(argv, seconds=LIST_SECONDS, limit=LIST_LIMIT)
    if status == TOOK_TOO_LONG or (status == 0 and not printed.endswith("\n")):
        raise _NotChecked("it has too many files to compare them")
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


def _changed(place: Path, system: Tree, commit: CommitFiles, until: float) -> Iterator[str]:
    """The files of a deployment that are not those of its commit.

    Raises _NotChecked after the moment `until` (time.monotonic()).
    """
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
            if time.monotonic() > until:
                raise _NotChecked(f"the comparison took longer than {CHECK_SECONDS:g} s")
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
    """Whether two regular files have the same content. Those beyond 256 MiB are not compared."""
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

"""A commit that becomes the base of a disk: the facts that the host can see, and its objects.

The host checks the checksums of commits and directories. Those of files, and signatures, are
checked in the helper VM.
"""

from __future__ import annotations

import configparser
import functools
import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Literal

from particle_agent.contract.inspection import COUNTED_BOOTS, STATEROOT

from particle_os.errors import UsageError, printable
from particle_os.ostree import history, objects
from particle_os.ostree.files import CONFIGURATION_LIMIT, RepositoryFiles, is_archive, opened, read
from particle_os.ostree.history import HEADS
from particle_os.ostree.objects import CHECKSUM, BadObject, Commit, TreeDirectory

CONFIGURATION = b"[core]\nrepo_version=1\nmode=archive-z2\n"
# The key of a commit's signatures in its detached metadata.
SIGNATURES, SIGNATURES_LIMIT = b"ostree.gpgsigs\0", 1 << 20
# The name of a directory for a system; the default is that of the stage `ostree`.
STATEROOT_NAME, STATEROOT_DEFAULT = re.compile(r"[a-z0-9][a-z0-9-]{0,59}"), "debian"
VERSION = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,200}")
MODULES, PREPARE_ROOT = "/usr/lib/modules", "/usr/lib/ostree/prepare-root.conf"
KERNELS_SHOWN, REFS_SHOWN = 5, 5
FILES_LIMIT, FILES_LOOKED_AT = 1_000_000, 100
COUNTER_LIMIT = 100


@dataclass(frozen=True)
class MountSettings:
    """The mounts of a deployment, as prepare-root.conf of a commit sets them.

    `counts_boots` says whether the commit counts its boots, which GRUB writes to the disk.
    """

    etc: Literal["persistent", "transient"]
    composefs: bool
    counts_boots: bool


@dataclass(frozen=True)
class Deployable:
    """A commit of a repository, and its tree. Raises BadObject for a malformed one."""

    files: RepositoryFiles
    ref: str
    commit: Commit
    # The directories that have been read, by their checksums.
    known: dict[str, TreeDirectory] = field(default_factory=dict, repr=False, compare=False)

    @property
    def checksum(self) -> str:
        return self.commit.checksum

    @property
    def is_signed(self) -> bool:
        """Whether the commit has a signature, which may be bad, or of anyone."""
        name = f"{_object(self.checksum)}.commitmeta"
        return SIGNATURES in (read(self.files, name, SIGNATURES_LIMIT) or b"")

    @property
    def stateroot(self) -> str:
        return self.commit.texts.get(STATEROOT, STATEROOT_DEFAULT)

    @property
    def version(self) -> str | None:
        """The version; None for a commit without one, or whose version is no line of text."""
        found = self.commit.version
        return found if found is not None and VERSION.fullmatch(found) else None

    @functools.cached_property
    def kernels(self) -> tuple[str, ...]:
        """The versions of the kernels that OSTree can boot."""
        return tuple(v for v in self.names(MODULES) if self.has(f"{MODULES}/{v}/vmlinuz"))

    @property
    def settings(self) -> MountSettings:
        """The mounts of a deployment, for a commit that configures them."""
        parser = configparser.RawConfigParser(strict=False)
        with suppress(configparser.Error):
            parser.read_string(self.text(PREPARE_ROOT, CONFIGURATION_LIMIT))
        transient = parser.get("etc", "transient", fallback="").lower() in ("true", "yes", "1")
        composefs = parser.get("composefs", "enabled", fallback="no").lower()
        return MountSettings(
            "transient" if transient else "persistent",
            composefs not in ("no", "false", "0", "maybe"),
            self.text(COUNTED_BOOTS, COUNTER_LIMIT).strip() not in ("", "0"),
        )

    def faults(self) -> Iterator[str]:
        """The reasons why no disk can boot the commit."""
        if not STATEROOT_NAME.fullmatch(self.stateroot):
            yield f"the commit names the stateroot '{printable(self.stateroot, 60)}', which is none"
        if self.directory("/usr/etc") is None:
            yield "the commit is no system: it has no /usr/etc"
        if not self.kernels:
            yield f"the commit has no kernel: there is no {MODULES}/VERSION/vmlinuz"
        elif len(self.kernels) > 1:
            shown = ", ".join(printable(name, 60) for name in self.kernels[:KERNELS_SHOWN])
            yield f"the commit has several kernels, and OSTree boots one: {shown}"
        elif not self.has(f"{MODULES}/{self.kernels[0]}/initramfs.img"):
            yield "the commit has no initramfs.img beside its kernel, which mounts a deployment"

    def directory(self, path: str) -> TreeDirectory | None:
        """A directory of the commit. No link is followed."""
        here = self._directory(self.commit.tree)
        for part in path.strip("/").split("/"):
            if part and part not in here.directories:
                return None
            here = self._directory(here.directories[part][0]) if part else here
        return here

    def names(self, path: str) -> list[str]:
        """The names in a directory of the commit."""
        found = self.directory(path)
        return sorted({**found.files, **found.directories}) if found else []

    def has(self, pattern: str) -> bool:
        """Whether the commit has a path; the last two components may be fnmatch(3) patterns."""
        above, _, name = pattern.rpartition("/")
        places = [above]
        if "*" in above.rpartition("/")[2]:
            top, _, part = above.rpartition("/")
            places = [f"{top}/{each}" for each in self.names(top) if fnmatchcase(each, part)]
        return any(fnmatchcase(each, name) for place in places for each in self.names(place))

    def text(self, path: str, limit: int) -> str:
        """The beginning of a file of the commit; empty when there is none."""
        above, _, name = path.rpartition("/")
        found = self.directory(above)
        if found is None or name not in found.files:
            return ""
        return objects.content(self.files, found.files[name], limit).decode("utf-8", "replace")

    def first_bytes(self, path: str, count: int) -> Iterator[bytes]:
        """The first bytes of files in a directory of the commit, in the order of the names."""
        found = self.directory(path)
        for _, checksum in sorted(found.files.items())[:FILES_LOOKED_AT] if found else ():
            yield objects.content(self.files, checksum, count)

    def _directory(self, checksum: str) -> TreeDirectory:
        if checksum not in self.known:
            self.known[checksum] = objects.directory(self.files, checksum)
        return self.known[checksum]

    def objects(self) -> dict[str, int]:
        """The sizes of all objects of the commit, by their paths in the repository.

        Raises BadObject when one is missing.
        """
        names = [f"{_object(self.checksum)}.commit", f"{_object(self.commit.root)}.dirmeta"]
        if self.is_signed:
            names.append(f"{_object(self.checksum)}.commitmeta")
        return {name: self._size(name) for name in dict.fromkeys((*names, *self._of_tree()))}

    def _of_tree(self) -> Iterator[str]:
        left, waiting = FILES_LIMIT, [self.commit.tree]
        seen = set(waiting)
        while waiting:
            checksum = waiting.pop()
            here = objects.directory(self.files, checksum)
            yield f"{_object(checksum)}.dirtree"
            yield from (f"{_object(each)}.filez" for each in here.files.values())
            for tree, mode in here.directories.values():
                yield f"{_object(mode)}.dirmeta"
                if tree not in seen:
                    seen.add(tree)
                    waiting.append(tree)
            left -= len(here.files) + len(here.directories)
            if left < 0:
                raise BadObject(f"the commit has more than {FILES_LIMIT} files")

    def _size(self, name: str) -> int:
        if (found := self.files.open(name)) is None:
            raise BadObject(f"the repository lacks the object {name.removeprefix('objects/')}")
        found[0].close()
        return found[1]

    def pack(self, sink: IO[bytes]) -> None:
        """Writes a repository with this commit alone, as a tar archive.

        Raises BadObject for an object that is gone or has changed its size.
        """
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
            _add(archive, "config", io.BytesIO(CONFIGURATION), len(CONFIGURATION))
            head = f"{self.checksum}\n".encode()
            _add(archive, f"{HEADS}{self.ref}", io.BytesIO(head), len(head))
            for name, size in self.objects().items():
                found = self.files.open(name)
                if found is None or found[1] != size:
                    raise BadObject(f"the repository's {name} has changed")
                with found[0] as stream:
                    _add(archive, name, stream, size)


def _add(archive: tarfile.TarFile, name: str, data: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    try:
        archive.addfile(member, data)
    except OSError as error:
        if error.errno is None:
            raise BadObject(f"the repository's {name} is cut off") from error
        raise


def _object(checksum: str) -> str:
    if not CHECKSUM.fullmatch(checksum):
        raise BadObject("an object of the repository is malformed")
    return f"objects/{checksum[:2]}/{checksum[2:]}"


@contextmanager
def deployable(path: Path, ref: str) -> Iterator[Deployable]:
    """The newest commit of a ref in a repository. Raises UsageError."""
    with opened(path) as files:
        if not is_archive(files):
            raise UsageError(
                f"{path} is no repository of the mode 'archive'",
                hint="'ostree pull-local' copies its commit into a repository of this mode.",
            )
        known = history.refs(files)
        if ref not in known:
            names = ", ".join(printable(name, 100) for name in sorted(known)[:REFS_SHOWN])
            raise UsageError(
                f"{path} has no ref '{ref}'",
                hint=f"It has: {names}." if names else "It has no ref at all.",
            )
        yield Deployable(files, ref, objects.commit(files, known[ref]))

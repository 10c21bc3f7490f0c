"""Reads file systems and their files from untrusted disks, without changing the disks."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from particle_agent.contract.inspection import FileSystem
from particle_agent.disk import modules
from particle_agent.errors import StageError
from particle_agent.target import inside

FILE_LIMIT = 32 << 20
COMMAND_SECONDS = 120.0
# mount(8), btrfs(5): without these options, mounting would replay a journal, which a read-only disk
# forbids. Boot loaders resolve names from the top of a Btrfs file system, not from its default.
MOUNT_OPTIONS = {
    "ext3": "ro,noload",
    "ext4": "ro,noload",
    "xfs": "ro,norecovery",
    "btrfs": "ro,rescue=nologreplay,subvolid=5",
}
MOUNTED = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "squashfs", "iso9660", "erofs")
# The kernel modules of file systems that need several, or whose module has another name. Debian's
# kernels set vfat's character sets.
MODULES = {
    "vfat": ("nls_cp437", "nls_ascii", "vfat"),
    "iso9660": ("isofs",),
    "ext2": ("ext4",),
    "ext3": ("ext4",),
}
# The names of subvolumes that are searched for a system.
SUBVOLUMES_LIMIT = 50
DEFAULT_SUBVOLUME = re.compile(r"ID \d+ gen \d+ top level \d+ path (.+)")


class Tree:
    """The files below a directory. Paths are resolved with it as the root and never lead out."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, path: str, *, follow: bool = True) -> Path | None:
        """The resolved place of a path; None for an invalid path and for a loop of links."""
        try:
            return inside.resolve(self.root, path, follow=follow)
        except (StageError, OSError, ValueError):
            return None

    def names(self, directory: str) -> list[str]:
        """The sorted names in a directory; empty when there is no such directory."""
        place = self.place(directory)
        try:
            return sorted(os.listdir(place)) if place is not None and place.is_dir() else []
        except OSError:
            return []

    def read_bytes(self, path: str, limit: int = FILE_LIMIT) -> bytes:
        """The first `limit` bytes of a regular file; empty when there is no such file."""
        place = self.place(path)
        try:
            if place is None or not place.is_file():
                return b""
            with place.open("rb") as file:
                return file.read(limit)
        except OSError:
            return b""

    def read(self, path: str, limit: int = FILE_LIMIT) -> str:
        return self.read_bytes(path, limit).decode("utf-8", "replace")

    def size(self, path: str) -> int:
        """The size in bytes of a regular file; 0 when there is no such file."""
        place = self.place(path)
        try:
            return place.stat().st_size if place is not None and place.is_file() else 0
        except OSError:
            return 0

    def exists(self, path: str) -> bool:
        place = self.place(path)
        return place is not None and place.exists()

    def is_file(self, path: str) -> bool:
        """Whether the path is a regular file that is not empty."""
        return self.size(path) > 0


def ask(*argv: str) -> str:
    """The output of a program; empty when it fails, as it does on a damaged disk."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def output(argv: Sequence[str], *, seconds: float, limit: int) -> tuple[int, str]:
    """Runs a program. Returns its exit status and the first `limit` bytes of its output.

    The status is the status of timeout(1): 124 when `seconds` have passed, 127 when there is no
    such program.
    """
    with subprocess.Popen(
        ["timeout", "--kill-after=10", f"{seconds:g}", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.read(limit)
        while process.stdout.read(1 << 16):
            pass
    return process.returncode, printed.decode("utf-8", "surrogateescape")


def identify(node: Path) -> FileSystem | None:
    """The file system on a device, by its superblock; None when blkid(8) knows none."""
    lines = ask("blkid", "--probe", "--output", "export", str(node)).splitlines()
    tags = dict(line.partition("=")[::2] for line in lines)
    kind = tags.get("TYPE", "")
    if not kind:
        return None
    return FileSystem(kind=kind, label=tags.get("LABEL", ""), uuid=tags.get("UUID", ""))


@contextmanager
def looped(device: Path, sector: int) -> Iterator[Path]:
    """The disk as another device, which is read-only and has sectors of `sector` bytes.

    The kernel reads its partition table again, and mounts it beside partitions of `device`.
    """
    modules.load("loop")
    argv = ["losetup", "--find", "--show", "--read-only", "--partscan"]
    done = subprocess.run(
        [*argv, "--sector-size", str(sector), str(device)],
        check=True,
        capture_output=True,
        timeout=COMMAND_SECONDS,
    )
    loop = Path(done.stdout.decode().strip())
    try:
        yield loop
    finally:
        _succeeds(["losetup", "--detach", str(loop)])


def partition(device: Path, number: int) -> Path:
    """The device of a partition. The kernel parts the number from a name that ends in a digit."""
    return Path(f"{device}{'p' if device.name[-1].isdecimal() else ''}{number}")


def default_in(tree: Tree, kind: str) -> Tree:
    """The directory that a mount without options shows: the default subvolume of Btrfs."""
    if kind == "btrfs":
        told = ask("btrfs", "subvolume", "get-default", str(tree.root))
        found = DEFAULT_SUBVOLUME.search(told)
        place = tree.place(f"/{found[1]}") if found else None
        return tree if place is None else Tree(place)
    return tree


def system_in(tree: Tree, kind: str) -> Tree | None:
    """The root directory of a system: the top of a file system, or one of its subvolumes.

    A subvolume of Btrfs is a directory below the top. The default one comes first.
    """
    places: list[Path | None] = [default_in(tree, kind).root]
    if kind == "btrfs":
        places += [tree.place(f"/{name}") for name in tree.names("/")[:SUBVOLUMES_LIMIT]]
    for place in (tree.root, *places):
        if place is not None:
            found = tree if place == tree.root else Tree(place)
            if found.names("/usr") and found.names("/etc"):
                return found
    return None


@contextmanager
def mounted(node: Path, kind: str) -> Iterator[Path | None]:
    """Mounts the file system of a device read-only. Yields its mount point, or None on failure."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inspected-")))
        options = f"{MOUNT_OPTIONS.get(kind, 'ro')},nodev,nosuid,noexec"
        argv = ["mount", "-t", kind, "-o", options, str(node), str(place)]
        if kind not in MOUNTED or not _load(kind) or not _succeeds(argv):
            yield None
            return
        stack.callback(_succeeds, ["umount", str(place)])
        yield place


def _load(kind: str) -> bool:
    try:
        for name in MODULES.get(kind, (kind,)):
            modules.load(name)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _succeeds(argv: Sequence[str]) -> bool:
    done = subprocess.run(argv, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    return done.returncode == 0

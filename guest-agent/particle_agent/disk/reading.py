"""Disks that nobody vouches for, read without changing them: file systems, and files in them."""

from __future__ import annotations

import os
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
# mount(8): the journal of a file system that was not unmounted is not written on a read-only disk.
MOUNT_OPTIONS = {"ext3": "ro,noload", "ext4": "ro,noload", "xfs": "ro,norecovery"}
MOUNTED = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "squashfs", "iso9660", "erofs")
# Kernel modules that nobody loads by itself; vfat's character sets are those of Debian's kernels.
MODULES = {"vfat": ("nls_cp437", "nls_ascii", "vfat")}


class Tree:
    """What lies below a directory. Paths are resolved as inside of it, and never lead out."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, path: str, *, follow: bool = True) -> Path | None:
        """Where a path lies; None for links that go round in a circle."""
        try:
            return inside.resolve(self.root, path, follow=follow)
        except (StageError, OSError, ValueError):
            return None

    def names(self, directory: str) -> list[str]:
        """The sorted names in a directory; nothing when there is none."""
        place = self.place(directory)
        try:
            return sorted(os.listdir(place)) if place is not None and place.is_dir() else []
        except OSError:
            return []

    def read_bytes(self, path: str, limit: int = FILE_LIMIT) -> bytes:
        """The beginning of a regular file; nothing when there is none."""
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
        """Of a regular file, in bytes; 0 when there is none."""
        place = self.place(path)
        try:
            return place.stat().st_size if place is not None and place.is_file() else 0
        except OSError:
            return 0

    def exists(self, path: str) -> bool:
        place = self.place(path)
        return place is not None and place.exists()

    def is_file(self, path: str) -> bool:
        """Whether there is a regular file that is not empty."""
        return self.size(path) > 0


def ask(*argv: str) -> str:
    """What a program prints; nothing when it fails, as it does on a disk that is not whole."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def output(argv: Sequence[str], *, seconds: float, limit: int) -> tuple[int, str]:
    """Exit status and the first `limit` bytes of the output of a program, however much there is.

    The status is that of timeout(1): 124 after so many seconds, 127 without such a program.
    """
    with subprocess.Popen(
        ["timeout", "--kill-after=10", f"{seconds:g}", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read(limit)
        while process.stdout.read(1 << 16):
            pass
    return process.returncode, said.decode("utf-8", "surrogateescape")


def identify(node: Path) -> FileSystem | None:
    """The file system on a device, by its superblock; None when there is none that is known."""
    lines = ask("blkid", "--probe", "--output", "export", str(node)).splitlines()
    told = dict(line.partition("=")[::2] for line in lines)
    kind = told.get("TYPE", "")
    if not kind:
        return None
    return FileSystem(kind=kind, label=told.get("LABEL", ""), uuid=told.get("UUID", ""))


@contextmanager
def mounted(node: Path, kind: str) -> Iterator[Path | None]:
    """The file system of a device, mounted read-only for as long as it lasts, if it can be."""
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

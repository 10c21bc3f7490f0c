"""The scratch disk: its file system and its mounts."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from particle_agent.target import inside
from particle_agent.target.disks import wait_for_disk
from particle_agent.target.system_calls import (
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_SHARED,
    mount,
    mounted,
)

SCRATCH = Path("/scratch")
ROOT = SCRATCH / "target"
# linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int).
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
# Reads NUL-terminated paths from standard input. Asks the kernel to read each file, without waiting
# for it.
WILL_NEED = """\
import os, sys
for path in sys.stdin.buffer.read().split(b"\\0")[:-1]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        continue  # A stage has removed the file.
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
    os.close(file)
"""
APT_DIRECTORIES = {"lists": "/var/lib/apt/lists", "archives": "/var/cache/apt/archives"}
# The target's /dev: as that of containers, without disks, console and kernel log.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def prepare_scratch() -> Path:
    """Makes and mounts the file system of the scratch disk. Returns the empty target directory."""
    device = wait_for_disk("scratch", 0, 30.0)
    # The disk needs no journal: it is thrown away unless every stage succeeds.
    subprocess.run(
        ["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=1", str(device)],
        check=True,
        timeout=120,
    )
    mount_scratch()
    ROOT.mkdir(mode=0o755)
    return ROOT


@contextmanager
def packages_disk() -> Iterator[Path]:
    """Mounts the host's disk of packages. Yields its mount point in the VM."""
    place = Path("/run/particle-os/packages")
    place.mkdir()
    device = str(wait_for_disk("packages", 0, 30.0))
    subprocess.run(["mount", "-o", "ro", device, str(place)], check=True, timeout=60)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=60)


def mount_scratch() -> bool:
    """Mounts the scratch disk. Returns False if it was mounted before."""
    if SCRATCH.is_mount():
        return False
    device = wait_for_disk("scratch", 0, 30.0)
    SCRATCH.mkdir(exist_ok=True)
    # A device node that a package or a program makes is part of the image, and dead here.
    mount(device, SCRATCH, "ext4", MS_NOATIME | MS_NODEV)
    # Mounts in the target appear in the enclosures of its programs.
    mount("", SCRATCH, flags=MS_SHARED)
    return True


def read_ahead(root: Path) -> subprocess.Popen[bytes]:
    """Starts a process that makes the kernel read all files of the tree into memory.

    The last stage reads all files, and would wait for the emulated disk once for each file. The
    disk serves many requests at the same time. File systems mounted in the tree are left out.
    """
    # Sort by inode: this is probably the order of the files on the disk.
    script = (
        "find \"$1\" -xdev -type f -printf '%i %p\\0' | sort --zero-terminated --numeric-sort |"
        " cut --zero-terminated --delimiter=' ' --fields=2- | python3 -I -S -c \"$2\""
    )
    return subprocess.Popen(
        ["sh", "-c", script, "sh", str(root), WILL_NEED],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def fits_into_memory() -> bool:
    """Whether the content of the scratch disk takes less than half of the available memory."""
    disk, memory = os.statvfs(SCRATCH), Path("/proc/meminfo").read_text()
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    available = next(line for line in memory.splitlines() if line.startswith("MemAvailable:"))
    return used < int(available.split()[1]) * 1024 // 2


@contextmanager
def frozen_scratch() -> Iterator[None]:
    """Writes everything to the scratch disk, and blocks further writes until the context ends."""
    descriptor = os.open(SCRATCH, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, FITHAW, 0)
    finally:
        os.close(descriptor)


@contextmanager
def mounted_for_chroot(root: Path) -> Iterator[None]:
    """Mounts the file systems that programs in the target expect, and apt's caches from outside."""
    with ExitStack() as stack:

        def place(path: str) -> Path:
            # The target's links must not lead a mount out of the target.
            found = inside.resolve(root, path)
            found.mkdir(parents=True, exist_ok=True)
            return found

        stack.enter_context(mounted("proc", place("/proc"), "proc"))
        stack.enter_context(mounted("sysfs", place("/sys"), "sysfs"))
        stack.enter_context(_devices(place("/dev")))
        for path, mode in {"/run": "0755", "/tmp": "1777"}.items():
            stack.enter_context(mounted("tmpfs", place(path), "tmpfs", MS_NODEV, f"mode={mode}"))
        for name, path in APT_DIRECTORIES.items():
            outside = SCRATCH / "apt" / name
            (outside / "partial").mkdir(parents=True, exist_ok=True)
            stack.enter_context(mounted(outside, place(path), flags=MS_BIND))
        yield


@contextmanager
def _devices(place: Path) -> Iterator[None]:
    """Mounts a /dev with the devices that every program may use, and nothing else.

    New device nodes in it are dead: the devices are mounts of those of the VM.
    """
    with mounted("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"):
        for name in DEVICES:
            (place / name).touch()
            mount(f"/dev/{name}", place / name, flags=MS_BIND)
        # grub-probe(8) needs the name of the device with the root file system, and may not open it.
        disk = wait_for_disk("scratch", 0, 30.0)
        os.mknod(place / disk.name, stat.S_IFBLK, disk.stat().st_rdev)
        for name, to in DEVICE_LINKS.items():
            (place / name).symlink_to(to)
        for name in ("pts", "shm"):
            (place / name).mkdir()
        terminals = "ptmxmode=0666,mode=0620,gid=5"
        mount("devpts", place / "pts", "devpts", MS_NOSUID | MS_NOEXEC, terminals)
        mount("tmpfs", place / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
        yield

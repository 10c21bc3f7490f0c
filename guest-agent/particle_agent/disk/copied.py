"""XFS and Btrfs: the image's own tools make them, and a copy of the tree fills them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.disk import modules
from particle_agent.disk.volumes import MIB, SLACK
from particle_agent.errors import CommandFailed, StageError
from particle_agent.system import kernels
from particle_agent.target.target import Target

CopiedKind = Literal["xfs", "btrfs"]
# The precision of the search for the least size of a Btrfs, in MiB. Each step moves files.
SHRINK_STEP = 16
# A file of the size of the partition: apt's cache is on the scratch disk, and not in the image.
EMPTY = "/var/cache/apt/archives/particle-os-file-system"
CHUNK = 1 << 20
PACKAGES = {"xfs": "xfsprogs", "btrfs": "btrfs-progs"}


def package_needs(kind: str) -> Iterator[Need]:
    """The need for the package with the tools of a root file system."""
    if kind in PACKAGES:
        why = f"a root file system of {kind}"
        yield needs.package(PACKAGES[kind], _maker(kind), why, "file-system")


def _maker(kind: str) -> str:
    return f"/usr/sbin/mkfs.{kind}"


def check(target: Target, kind: str) -> None:
    """Raises StageError unless the image has the tools for its root file system."""
    package = PACKAGES.get(kind)
    if package and not target.exists(_maker(kind)):
        raise StageError(
            f"the image has no tools for {kind}: the package '{package}' is not installed",
            hint=f"Add '{package}' to the packages of the apt stage that installs the kernel.",
        )


def prepare_initramfs(target: Target, kind: str, version: str) -> None:
    """Makes the initramfs again if it lacks the module of the root file system."""
    if kind not in PACKAGES:
        return
    listing = target.capture(["lsinitramfs", f"/boot/initrd.img-{version}"], timeout=300)
    if f"/{kind}.ko" not in listing:
        target.reporter.note(f"the initramfs lacks the module {kind}; making it again")
        kernels.make_initramfs(target, version)


def make(
    target: Target, kind: CopiedKind, partition: Path, *, label: str, uuid: str, size: int
) -> None:
    """Makes the empty file system.

    It uses the image's tools, so that the image's kernel and boot loader know the features. The
    image's programs may not open disks. So they write to a file, which the agent then copies.
    """
    options = ["-m", f"uuid={uuid}"] if kind == "xfs" else ["-U", uuid]
    target.write(EMPTY, "")
    try:
        os.truncate(target.path(EMPTY), size)
        target.chroot([f"mkfs.{kind}", "-q", "-L", label, *options, EMPTY])
        with target.open(EMPTY) as file:
            copy_data(file, partition)
    finally:
        target.remove(EMPTY)


def copy_data(source: IO[bytes], device: Path) -> None:
    """Copies a sparse file to the start of a device that holds only zeros."""
    with device.open("r+b") as disk:
        for start, end in _extents(source.fileno()):
            source.seek(start)
            disk.seek(start)
            for place in range(start, end, CHUNK):
                disk.write(source.read(min(CHUNK, end - place)))


def _extents(file: int) -> Iterator[tuple[int, int]]:
    """The start and the end of each part of a sparse file that has data (lseek(2))."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # ENXIO: the rest is a hole.
            return
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


@contextmanager
def mounted(target: Target, kind: CopiedKind, partition: Path) -> Iterator[Path]:
    """Mounts the file system in the helper VM. Yields its mount point."""
    modules.load(kind)
    with target.mounted(partition, "-t", kind, "-o", "noatime") as place:
        yield place


def copy(target: Target, tree: Path, place: Path) -> None:
    """Copies the content of `tree` with all attributes of each file."""
    target.run(["cp", "--archive", "--one-file-system", f"{tree}/.", str(place)])


def shrink(target: Target, partition: Path, size: int, content: int) -> int:
    """Shrinks a Btrfs to the least possible size plus `SLACK`. Returns the new size in bytes.

    Its current size is `size` bytes; its files have `content` bytes. Btrfs allocates space in large
    chunks, and `btrfs inspect-internal min-dev-size` counts chunks that are almost empty. So this
    function tries sizes in between. For each, the kernel either moves what lies beyond the end, or
    refuses and changes nothing.
    """
    least, fits = content // MIB, size // MIB
    with mounted(target, "btrfs", partition) as place:
        while fits - least > SHRINK_STEP:
            middle = (least + fits) // 2
            if _resized(target, place, middle):
                fits = middle
            else:
                least = middle
        fits = min(size, fits * MIB + SLACK)
        target.run(["btrfs", "filesystem", "resize", str(fits), str(place)])
        # Moved blocks leave their old content on the disk: discard it, to keep the image sparse.
        target.run(["fstrim", str(place)])
    return fits


def _resized(target: Target, place: Path, mebibytes: int) -> bool:
    """Resizes a Btrfs. Returns False if its content does not fit in this size."""
    try:
        target.run(["btrfs", "filesystem", "resize", f"{mebibytes}M", str(place)])
    except CommandFailed:
        return False
    return True


def make_swap(target: Target, kind: CopiedKind, file: Path, size: int, uuid: str) -> None:
    """Makes a swap file of `size` bytes without holes, which swapon(8) refuses."""
    file.touch(mode=0o600)
    if kind == "btrfs":
        # btrfs(5), SWAPFILE SUPPORT: a swap file must not be copied on write.
        target.run(["chattr", "+C", str(file)])
    target.run(["fallocate", "--length", str(size), str(file)])
    target.run(["mkswap", "-q", "-U", uuid, str(file)])

"""XFS and Btrfs: made by the image's own tools, and filled by copying."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.disk import modules
from particle_agent.disk.volumes import MIB, SLACK
from particle_agent.errors import CommandFailed, StageError
from particle_agent.system import kernels
from particle_agent.target.target import Target

CopiedKind = Literal["xfs", "btrfs"]
# How near the least size of a Btrfs is come to, in MiB; each step moves files.
SHRINK_STEP = 16
PACKAGES = {"xfs": "xfsprogs", "btrfs": "btrfs-progs"}


def package_needs(kind: str) -> Iterator[Need]:
    """The package with the tools of a root file system."""
    if kind in PACKAGES:
        why = f"a root file system of {kind}"
        yield needs.package(PACKAGES[kind], _maker(kind), why, "file-system")


def _maker(kind: str) -> str:
    return f"/usr/sbin/mkfs.{kind}"


def check(target: Target, kind: str) -> None:
    """Raises StageError unless the image has the tools of its root file system."""
    package = PACKAGES.get(kind)
    if package and not target.exists(_maker(kind)):
        raise StageError(
            f"the image has no tools for {kind}: the package '{package}' is not installed",
            hint=f"Add '{package}' to the packages of the apt stage that installs the kernel.",
        )


def prepare_initramfs(target: Target, kind: str, version: str) -> None:
    """Makes the initramfs anew when it lacks the root file system's module."""
    if kind not in PACKAGES:
        return
    listing = target.capture(["lsinitramfs", f"/boot/initrd.img-{version}"], timeout=300)
    if f"/{kind}.ko" not in listing:
        target.reporter.note(f"the initramfs has no {kind}: it is made anew")
        kernels.make_initramfs(target, version)


def make(target: Target, kind: CopiedKind, partition: Path, *, label: str, uuid: str) -> None:
    """Makes the empty file system.

    The tools are those of the image, so that its kernel and its boot loader know the features.
    """
    options = ["-m", f"uuid={uuid}"] if kind == "xfs" else ["-U", uuid]
    target.chroot([f"mkfs.{kind}", "-q", "-L", label, *options, str(partition)])


@contextmanager
def mounted(target: Target, kind: CopiedKind, partition: Path) -> Iterator[Path]:
    """The file system, mounted in the helper VM for as long as the context lasts."""
    modules.load(kind)
    with target.mounted(partition, "-t", kind, "-o", "noatime") as place:
        yield place


def copy(target: Target, tree: Path, place: Path) -> None:
    """Copies the content of `tree` with all that is known of each file."""
    target.run(["cp", "--archive", "--one-file-system", f"{tree}/.", str(place)])


def shrink(target: Target, partition: Path, size: int, content: int) -> int:
    """Makes a full Btrfs as small as it goes, and some room larger; returns its bytes.

    It has `size` bytes now, of which `content` are files. It gives out its space in large pieces,
    and what `btrfs inspect-internal min-dev-size` tells counts these, however empty they are. So
    sizes in between are tried: the kernel moves what lies beyond the end, or leaves all as it is.
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
        # What was moved has left its content behind.
        target.run(["fstrim", str(place)])
    return fits


def _resized(target: Target, place: Path, mebibytes: int) -> bool:
    """Whether a Btrfs could be given this size."""
    try:
        target.run(["btrfs", "filesystem", "resize", f"{mebibytes}M", str(place)])
    except CommandFailed:
        return False
    return True


def make_swap(target: Target, kind: CopiedKind, file: Path, size: int, uuid: str) -> None:
    """Makes a swap file of `size` bytes, without holes (swapon(8) takes no others)."""
    file.touch(mode=0o600)
    if kind == "btrfs":
        # btrfs(5), SWAPFILE SUPPORT: it is not copied on write, either.
        target.run(["chattr", "+C", str(file)])
    target.run(["fallocate", "--length", str(size), str(file)])
    target.run(["mkswap", "-q", "-U", uuid, str(file)])

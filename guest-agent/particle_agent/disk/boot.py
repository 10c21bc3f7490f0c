"""The common part of all boot loaders: the kernel, its command line, the file system to boot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from particle_agent.contract.architectures.record import Architecture as Architecture
from particle_agent.contract.needs import INIT, Need
from particle_agent.disk.volumes import Volume
from particle_agent.errors import StageError
from particle_agent.system import kernels
from particle_agent.target.target import Target

# COMMAND_LINE_SIZE of x86 and arm64 is 2048, including the NUL.
COMMAND_LINE_LIMIT = 2047
# The advice about a program of a boot loader (see `StageOptions.rewrites`).
PROGRAM = "leave it out: the stage installs the programs of the boot loader"
# The space for boot code in an MBR.
MBR_CODE_BYTES = 440


@dataclass(frozen=True)
class InstalledKernel:
    """A kernel of the image and its initramfs, as paths in the image."""

    version: str
    image: str
    initrd: str


@dataclass(frozen=True)
class Booting:
    """The input of a boot loader.

    `boot_uuid` is the UUID of the file system with /boot. `file_system` is the kind of the root
    file system.
    """

    kernel: InstalledKernel
    command_line: str
    boot_uuid: str
    file_system: str


class BootLoader(Protocol):
    """A boot loader. The methods are called in this order."""

    def needs(self) -> Iterable[Need]:
        """The packages that the boot loader needs in the image."""

    def signed_needs(self) -> Iterable[Need]:
        """The additional packages that it needs for Secure Boot."""

    def rewrites(self) -> Iterable[tuple[str, str]]:
        """The files that it replaces (see `StageOptions.rewrites`)."""

    def check(self, target: Target) -> None:
        """Raises StageError with the name of a package that the image lacks."""

    def volumes(self) -> list[Volume]:
        """The partitions that it needs before the partition of the root file system."""

    def prepare(self, target: Target, booting: Booting) -> None:
        """Puts its files into the tree of the target."""

    def install(self, target: Target, disk: Path, volumes: Sequence[Volume]) -> list[str]:
        """Makes the files that it can only make in the finished file systems.

        Returns their names in its directory of the file system with /boot.
        """

    def write_boot_code(self, target: Target, disk: Path, volumes: Sequence[Volume]) -> None:
        """Writes the code that BIOS starts, outside the file systems."""


def kernel_need(architecture: Architecture) -> Need:
    """The need of every boot loader: a kernel."""
    return Need(
        what="package linux-image",
        message="there is no kernel for the boot loader: no stage before it installs one",
        hint=f"add {architecture.image.kernel_hint} to the packages of an apt stage",
        # The package of headers depends on the kernel.
        packages=("linux-image-*", "linux-headers-*"),
        # The last one is in the tree of an OSTree commit.
        files=("/vmlinuz", "/boot/vmlinuz-*", "/usr/lib/modules/*/vmlinuz"),
    )


def init_need() -> Need:
    """The need of every kernel: an init, at one of the paths that an initramfs tries."""
    return Need(
        what=INIT,
        message="there is no init that the kernel could start: no stage before it installs one",
        hint="add 'systemd-sysv' to the packages of an apt stage",
        packages=("systemd-sysv", "init", "sysvinit-core"),
        files=("/sbin/init", "/usr/sbin/init", "/etc/init", "/bin/init"),
        others=True,
    )


def newest_kernel(target: Target) -> InstalledKernel:
    """The kernel to boot. Raises StageError if there is none, or it has no initramfs.

    Debian's linux-update-symlinks points the links /vmlinuz and /initrd.img at the newest kernel.
    The links are preferred, so that an upgrade in the running image needs no new menu.
    """
    if target.exists("/vmlinuz") and target.exists("/initrd.img"):
        version = target.path("/vmlinuz").name.removeprefix("vmlinuz-")
        return InstalledKernel(version, "/vmlinuz", "/initrd.img")
    versions = kernels.versions(target)
    if not versions:
        raise StageError(
            "the image has no kernel in /boot",
            hint=f"Add {target.architecture.image.kernel_hint} to the packages of an apt stage.",
        )
    version = versions[-1]
    if not target.exists(f"/boot/initrd.img-{version}"):
        raise StageError(
            f"the image has no initramfs for its kernel {version}",
            hint="Add 'initramfs-tools' to the packages of an apt stage.",
        )
    return InstalledKernel(version, f"/boot/vmlinuz-{version}", f"/boot/initrd.img-{version}")


def command_line(target: Target, root_uuid: str, *, writable: bool = False) -> str:
    """The kernel's command line. The last of its consoles becomes /dev/console.

    Raises StageError when it is longer than the kernel's limit.
    """
    consoles = target.architecture.image.consoles
    words = [f"root=UUID={root_uuid}", "rw" if writable else "ro", *consoles]
    words += [word for word in kernels.command_line(target) if word not in words]
    line = " ".join(words)
    if len(line) > COMMAND_LINE_LIMIT:
        raise StageError(
            f"the kernel's command line has {len(line)} characters; the limit is "
            f"{COMMAND_LINE_LIMIT}"
        )
    if target.exists(kernels.COMMAND_LINE):
        # Boot loaders that are installed later read this file.
        target.write(kernels.COMMAND_LINE, f"{line}\n")
    return line


def menu_rewrites(*paths: str) -> Iterator[tuple[str, str]]:
    """The files of a boot loader that the disk's stage replaces, and the option to use instead."""
    for path in paths:
        yield path, "set words for the kernel in 'command-line' of a stage 'kernel'"


def need(target: Target, path: str, package: str, what: str) -> None:
    """Raises StageError unless the image has the file, which is part of the package."""
    if not target.exists(path):
        raise StageError(
            f"{what}: the package '{package}' is not installed in the image",
            hint=f"Add '{package}' to the packages of an apt stage.",
        )


def write_code(disk: Path, code: bytes, offset: int = 0) -> None:
    """Writes boot code to the disk at `offset` bytes.

    Raises StageError when code for the start of the disk exceeds the space of an MBR.
    """
    if offset == 0 and len(code) > MBR_CODE_BYTES:
        raise StageError(f"the boot code has {len(code)} bytes; a master boot record holds 440")
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(code)

"""What all boot loaders need to know: the kernel, its command line, where the image boots from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from particle_agent.contract.needs import INIT, Need
from particle_agent.disk.volumes import Volume
from particle_agent.errors import StageError
from particle_agent.system import kernels
from particle_agent.target.target import Target

# COMMAND_LINE_SIZE of x86, with the NUL.
COMMAND_LINE_LIMIT = 2047
CONSOLES = ("console=tty0", "console=ttyS0,115200")
# What the boot code of an MBR may take.
MBR_CODE_BYTES = 440


@dataclass(frozen=True)
class InstalledKernel:
    """A kernel of the image and its initramfs, as paths in the image."""

    version: str
    image: str
    initrd: str


@dataclass(frozen=True)
class Booting:
    """What a boot loader is to boot, and from where.

    `boot_uuid` is that of the file system which holds /boot, `file_system` the root's.
    """

    kernel: InstalledKernel
    command_line: str
    boot_uuid: str
    file_system: str


class BootLoader(Protocol):
    """One boot loader, in the order in which a disk is made."""

    def needs(self) -> Iterable[Need]:
        """The packages that the image must have."""

    def signed_needs(self) -> Iterable[Need]:
        """Those that it must have for Secure Boot, too."""

    def check(self, target: Target) -> None:
        """Raises StageError naming the package that the image lacks."""

    def volumes(self) -> list[Volume]:
        """The partitions that it needs before that of the root file system."""

    def prepare(self, target: Target, booting: Booting) -> None:
        """Puts its files into the tree."""

    def install(self, target: Target, disk: Path, volumes: Sequence[Volume]) -> list[str]:
        """Does what needs the file systems; returns the files it made there, for /boot's one."""

    def write_boot_code(self, target: Target, disk: Path, volumes: Sequence[Volume]) -> None:
        """Writes what BIOS starts, outside of the file systems."""


def kernel_need() -> Need:
    """What every boot loader needs."""
    return Need(
        what="package linux-image",
        message="there is no kernel for the boot loader: no stage before it installs one",
        hint="add 'linux-image-cloud-amd64' (for virtual machines) or 'linux-image-amd64' to the "
        "packages of an apt stage",
        # The headers depend on it, too.
        packages=("linux-image-*", "linux-headers-*"),
        files=("/vmlinuz", "/boot/vmlinuz-*"),
    )


def init_need() -> Need:
    """What every kernel needs; the paths are those that an initramfs tries."""
    return Need(
        what=INIT,
        message="there is no init that the kernel could start: no stage before it installs one",
        hint="add 'systemd-sysv' to the packages of an apt stage",
        packages=("systemd-sysv", "init", "sysvinit-core"),
        files=("/sbin/init", "/usr/sbin/init", "/etc/init", "/bin/init"),
        others=True,
    )


def newest_kernel(target: Target) -> InstalledKernel:
    """The kernel to boot.

    Debian keeps the links /vmlinuz and /initrd.img at the newest kernel (linux-update-symlinks),
    so that an upgrade in the running image needs no new boot loader menu.
    """
    if target.exists("/vmlinuz") and target.exists("/initrd.img"):
        version = target.path("/vmlinuz").name.removeprefix("vmlinuz-")
        return InstalledKernel(version, "/vmlinuz", "/initrd.img")
    versions = kernels.versions(target)
    if not versions:
        raise StageError(
            "the image has no kernel in /boot",
            hint="Add 'linux-image-cloud-amd64' (for virtual machines) or 'linux-image-amd64' to "
            "the packages of an apt stage.",
        )
    version = versions[-1]
    if not target.exists(f"/boot/initrd.img-{version}"):
        raise StageError(
            f"the image has no initramfs for its kernel {version}",
            hint="Add 'initramfs-tools' to the packages of an apt stage.",
        )
    return InstalledKernel(version, f"/boot/vmlinuz-{version}", f"/boot/initrd.img-{version}")


def command_line(target: Target, root_uuid: str) -> str:
    """The kernel's command line; of several consoles, the last one becomes /dev/console.

    Raises StageError when it is longer than the kernel takes.
    """
    words = [f"root=UUID={root_uuid}", "ro", *CONSOLES]
    words += [word for word in kernels.command_line(target) if word not in words]
    line = " ".join(words)
    if len(line) > COMMAND_LINE_LIMIT:
        raise StageError(
            f"the kernel's command line has {len(line)} characters; the limit is "
            f"{COMMAND_LINE_LIMIT}"
        )
    if target.exists(kernels.COMMAND_LINE):
        # For a boot loader that is installed later.
        target.write(kernels.COMMAND_LINE, f"{line}\n")
    return line


def need(target: Target, path: str, package: str, what: str) -> None:
    """Raises StageError unless the image has the file, which the package brings."""
    if not target.exists(path):
        raise StageError(
            f"{what}: the package '{package}' is not installed in the image",
            hint=f"Add '{package}' to the packages of an apt stage.",
        )


def write_code(disk: Path, code: bytes, offset: int = 0) -> None:
    """Writes boot code to the disk, never beyond what an MBR has for it at its start."""
    if offset == 0 and len(code) > MBR_CODE_BYTES:
        raise StageError(f"boot code of {len(code)} bytes; a master boot record holds 440")
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(code)

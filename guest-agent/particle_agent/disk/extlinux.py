"""extlinux: a boot loader for BIOS that reads ext4 without other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_agent.disk import boot, volumes
from particle_agent.disk.boot import Booting, InstalledKernel
from particle_agent.disk.volumes import DiskLabel, Name, Volume
from particle_agent.target import inside
from particle_agent.target.target import Target

DIRECTORY = "/boot/extlinux"
KERNEL_LINKS = "/etc/kernel-img.conf"
# ext4(5). Threads of the kernel must not write inode tables meanwhile, nor read bitmaps: which
# bitmaps are in memory decides where the kernel puts a file, so two builds would differ.
MOUNT_OPTIONS = "noatime,noinit_itable,no_prefetch_block_bitmaps"
# The files that extlinux(1) installs in its directory.
FILES = ("ldlinux.sys", "ldlinux.c32")
MBR_CODE: dict[DiskLabel, Path] = {
    "gpt": Path("/usr/lib/syslinux/mbr/gptmbr.bin"),
    "msdos": Path("/usr/lib/syslinux/mbr/mbr.bin"),
}


@dataclass(frozen=True)
class Extlinux:
    """extlinux for BIOS. The helper VM has its programs, so that the image needs no package."""

    table: DiskLabel
    # Whether /boot is an ext4 partition, which root file systems other than ext4 need.
    separate: bool

    def needs(self) -> tuple[()]:
        return ()

    def signed_needs(self) -> tuple[()]:
        return ()

    def rewrites(self) -> Iterator[tuple[str, str]]:
        yield from boot.menu_rewrites(f"{DIRECTORY}/extlinux.conf")
        if self.separate:
            yield KERNEL_LINKS, "leave it out: extlinux needs the links to the kernel in /boot"

    def check(self, target: Target) -> None:
        pass

    def volumes(self) -> list[Volume]:
        return [Volume("boot", "ext4", "/boot", active=True)] if self.separate else []

    def prepare(self, target: Target, booting: Booting) -> None:
        kernel = booting.kernel
        if self.separate:
            kernel = _links_in_boot(target, kernel)
        target.make_directory(DIRECTORY)
        target.write(f"{DIRECTORY}/extlinux.conf", _menu(kernel, booting.command_line))

    def install(self, target: Target, disk: Path, parts: Sequence[Volume]) -> list[str]:
        name: Name = "boot" if self.separate else "root"
        directory = DIRECTORY.removeprefix("/boot" if self.separate else "")
        partition = volumes.node(disk, parts, name)
        with target.mounted(partition, "-o", MOUNT_OPTIONS) as mounted:
            target.run(["extlinux", "--install", str(inside.resolve(mounted, directory))])
        return list(FILES)

    def write_boot_code(self, target: Target, disk: Path, parts: Sequence[Volume]) -> None:
        boot.write_code(disk, MBR_CODE[self.table].read_bytes())


def _links_in_boot(target: Target, kernel: InstalledKernel) -> InstalledKernel:
    """Makes links to the kernel in the partition /boot, where the boot loader can read them.

    By kernel-img.conf(5), linux-update-symlinks keeps them at the newest kernel.
    """
    target.write(KERNEL_LINKS, "image_dest = /boot\nrelative_links = yes\n")
    for name, real in (("vmlinuz", kernel.image), ("initrd.img", kernel.initrd)):
        target.symlink(f"/boot/{name}", target.path(real).name)
        target.remove(f"/{name}")
    return InstalledKernel(kernel.version, "/vmlinuz", "/initrd.img")


def _menu(kernel: InstalledKernel, command_line: str) -> str:
    """The text of extlinux.conf; see https://wiki.syslinux.org/wiki/index.php?title=Config."""
    return (
        "SERIAL 0 115200\nPROMPT 0\nTIMEOUT 10\nDEFAULT linux\n\n"
        f"LABEL linux\n  LINUX {kernel.image}\n  INITRD {kernel.initrd}\n"
        f"  APPEND {command_line}\n"
    )

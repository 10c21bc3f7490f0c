"""GRUB: one disk for BIOS and UEFI, with GRUB from the packages of the image.

This module assembles GRUB from its parts without a mount, in the way of grub-install(8). A core
image for each firmware finds the file system with /boot by its UUID, and reads modules and menu
there. In the running system update-grub(8) replaces the menu whenever a kernel is installed.
"""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.disk import boot
from particle_agent.disk.boot import Booting
from particle_agent.disk.volumes import MIB, DiskLabel, Volume
from particle_agent.errors import StageError
from particle_agent.system import kernels
from particle_agent.target.target import Target

SECTOR = 512
BIOS, EFI = "i386-pc", "x86_64-efi"
MODULES = "/usr/lib/grub"
BIOS_IMAGE, EFI_MODULES = f"{MODULES}/{BIOS}/boot.img", f"{MODULES}/{EFI}/moddep.lst"
UPDATE_GRUB = "/usr/sbin/update-grub"
DIRECTORY = "/boot/grub"
ESP = "/boot/efi"
DEFAULTS = "/etc/default/grub.d/particle-os.cfg"
# A file in the image that exists only while the core images are made.
EARLY = "/boot/grub/early.cfg"
# Programs signed for Secure Boot (the file, its package), and their names on the ESP.
SIGNED = {
    "BOOTX64.EFI": ("/usr/lib/shim/shimx64.efi.signed", "shim-signed"),
    "grubx64.efi": ("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "grub-efi-amd64-signed"),
    "mmx64.efi": ("/usr/lib/shim/mmx64.efi.signed", "shim-helpers-amd64-signed"),
}
# The modules that a core image needs to read the others, by GRUB's names.
FILE_SYSTEMS = {"ext4": "ext2", "xfs": "xfs", "btrfs": "btrfs"}
COMMON = ("part_gpt", "part_msdos", "search_fs_uuid", "normal", "configfile")
# Offsets from grub-core/boot/i386/pc/boot.S and diskboot.S (include/grub/machine/boot.h). The MBR's
# code has the sector number of the core image at KERNEL_SECTOR. At DRIVE_CHECK it jumps over the
# check for BIOSes that pass a wrong drive number; NO_JUMP replaces the jump, as grub-install(8)
# does. The core image's first sector has the number and count of its other sectors at BLOCK_LIST.
KERNEL_SECTOR, DRIVE_CHECK, NO_JUMP = 0x5C, 0x66, b"\x90\x90"
BLOCK_LIST = SECTOR - 12
# Words of a kernel's command line that are plain words to a shell and to GRUB's script, too.
WORD = re.compile(r"[A-Za-z0-9_@%+=:,./~^!*?\[\]-]+")


@dataclass(frozen=True)
class Grub:
    """GRUB for BIOS and UEFI."""

    table: DiskLabel

    def needs(self) -> Iterator[Need]:
        key = "boot-loader"
        yield needs.package("grub-pc-bin", BIOS_IMAGE, "GRUB for BIOS", key)
        why = "GRUB for UEFI"
        yield needs.package("grub-efi-amd64-bin", EFI_MODULES, why, key)
        yield needs.package("grub2-common", UPDATE_GRUB, "GRUB's menu", key)

    def signed_needs(self) -> Iterator[Need]:
        for name in ("BOOTX64.EFI", "grubx64.efi"):
            file, package = SIGNED[name]
            yield needs.package(package, file, "Secure Boot", "boot-loader")

    def rewrites(self) -> Iterator[tuple[str, str]]:
        return boot.menu_rewrites(f"{DIRECTORY}/grub.cfg", DEFAULTS)

    def check(self, target: Target) -> None:
        boot.need(target, BIOS_IMAGE, "grub-pc-bin", "GRUB for BIOS")
        boot.need(target, EFI_MODULES, "grub-efi-amd64-bin", "GRUB for UEFI")
        boot.need(target, UPDATE_GRUB, "grub2-common", "GRUB's menu")

    def volumes(self) -> list[Volume]:
        esp = Volume("esp", "vfat", ESP)
        return [Volume("bios-boot", "none"), esp] if self.table == "gpt" else [esp]

    def prepare(self, target: Target, booting: Booting) -> None:
        self.write_programs(target, booting)
        target.write(DEFAULTS, _defaults(booting.command_line))
        target.write(f"{DIRECTORY}/grub.cfg", _menu(booting))

    def write_programs(self, target: Target, booting: Booting) -> None:
        """Puts GRUB's modules and core images into the tree, without a menu."""
        words = booting.command_line.split()
        if strange := next((w for w in words if not WORD.fullmatch(w)), None):
            raise StageError(
                f"the word {strange!r} of {kernels.COMMAND_LINE} cannot be written to GRUB's menu",
                hint="Leave out quotes, '$', '\\', ';', '&', '|', '<', '>', '{' and '}'.",
            )
        for platform in (BIOS, EFI):
            _copy_modules(target, platform)
        find_boot = f"search.fs_uuid {booting.boot_uuid} root\nset prefix=($root){DIRECTORY}\n"
        target.write(EARLY, find_boot)
        known = (*COMMON, FILE_SYSTEMS[booting.file_system])
        _make_core(target, BIOS, f"{DIRECTORY}/{BIOS}/core.img", (*known, "biosdisk"))
        if self._is_signed(target):
            for name, (source, _) in SIGNED.items():
                _copy(target, source, f"{ESP}/EFI/BOOT/{name}")
            # The signed program reads its menu from this directory, wherever it was started from.
            menu = f"{find_boot}configfile $prefix/grub.cfg\n"
            target.write(f"{ESP}/EFI/debian/grub.cfg", menu)
        else:
            target.make_directory(f"{ESP}/EFI/BOOT")
            _make_core(target, EFI, f"{ESP}/EFI/BOOT/BOOTX64.EFI", (*known, "fat"))
        target.remove(EARLY)

    def _is_signed(self, target: Target) -> bool:
        """Whether the image has all programs that Secure Boot needs."""
        return all(target.exists(source) for source, _ in SIGNED.values())

    def install(self, target: Target, disk: Path, parts: Sequence[Volume]) -> list[str]:
        return []

    def write_boot_code(self, target: Target, disk: Path, parts: Sequence[Volume]) -> None:
        core = bytearray(target.read_bytes(f"{DIRECTORY}/{BIOS}/core.img"))
        # The core image follows an MBR directly. On a GPT disk it has a partition.
        place = MIB if self.table == "gpt" else SECTOR
        room = MIB if self.table == "gpt" else MIB - SECTOR
        if len(core) > room:
            raise StageError(f"GRUB's core image has {len(core)} bytes; the limit is {room}")
        sector = place // SECTOR
        struct.pack_into("<QH", core, BLOCK_LIST, sector + 1, -(-len(core) // SECTOR) - 1)
        code = bytearray(target.read_bytes(f"{DIRECTORY}/{BIOS}/boot.img")[: boot.MBR_CODE_BYTES])
        struct.pack_into("<Q", code, KERNEL_SECTOR, sector)
        code[DRIVE_CHECK : DRIVE_CHECK + len(NO_JUMP)] = NO_JUMP
        boot.write_code(disk, bytes(code))
        boot.write_code(disk, bytes(core), place)


def _copy(target: Target, source: str, path: str) -> None:
    with target.open(source) as data:
        target.write_from(data, path)


def _copy_modules(target: Target, platform: str) -> None:
    """Copies GRUB's loadable modules to the place where grub-install(8) puts them."""
    place = f"{DIRECTORY}/{platform}"
    target.make_directory(place)
    for name in target.list(f"{MODULES}/{platform}"):
        if name.endswith((".mod", ".lst")) or name == "boot.img":
            _copy(target, f"{MODULES}/{platform}/{name}", f"{place}/{name}")


def _make_core(target: Target, platform: str, path: str, modules: Sequence[str]) -> None:
    target.chroot(
        ["grub-mkimage", "-O", platform, "-p", DIRECTORY, "-c", EARLY, "-o", path, *modules]
    )


def _defaults(command_line: str) -> str:
    """Settings for update-grub(8), which adds the root file system itself."""
    words = [w for w in command_line.split() if not w.startswith("root=") and w != "ro"]
    return (
        "# The kernel's command line and the consoles of this image.\n"
        "GRUB_TIMEOUT=1\n"
        f"GRUB_CMDLINE_LINUX={shlex.quote(' '.join(words))}\n"
        'GRUB_TERMINAL="console serial"\n'
        'GRUB_SERIAL_COMMAND="serial --speed=115200"\n'
    )


def _menu(booting: Booting) -> str:
    """The text of grub.cfg for the first boots, until update-grub(8) replaces it."""
    return (
        "# Made with the image; update-grub makes it anew.\n"
        "serial --speed=115200\n"
        "terminal_input console serial\nterminal_output console serial\n"
        "set timeout=1\n"
        f"search --no-floppy --fs-uuid --set=root {booting.boot_uuid}\n"
        "menuentry 'Linux' {\n"
        f"\tlinux {booting.kernel.image} {booting.command_line}\n"
        f"\tinitrd {booting.kernel.initrd}\n"
        "}\n"
    )

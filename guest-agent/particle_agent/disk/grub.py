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
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.record import Architecture
from particle_agent.contract.needs import Need
from particle_agent.disk import boot
from particle_agent.disk.boot import Booting
from particle_agent.disk.volumes import MIB, DiskLabel, Volume
from particle_agent.errors import StageError
from particle_agent.system import kernels
from particle_agent.target.target import Target

SECTOR = 512
BIOS = "i386-pc"
MODULES = "/usr/lib/grub"
BIOS_IMAGE = f"{MODULES}/{BIOS}/boot.img"
UPDATE_GRUB = "/usr/sbin/update-grub"
DIRECTORY = "/boot/grub"
ESP = "/boot/efi"
DEFAULTS = "/etc/default/grub.d/particle-os.cfg"
# A file in the image that exists only while the core images are made.
EARLY = "/boot/grub/early.cfg"
# The modules that a core image needs to read the others, by GRUB's names.
FILE_SYSTEMS = {"ext4": "ext2", "xfs": "xfs", "btrfs": "btrfs"}
COMMON = ("part_gpt", "part_msdos", "search_fs_uuid", "normal", "configfile")
# Offsets from grub-core/boot/i386/pc/boot.S and diskboot.S (include/grub/machine/boot.h). The MBR's
# code has the sector number of the core image at KERNEL_SECTOR. At DRIVE_CHECK it jumps over the
# check for BIOSes that pass a wrong drive number; NO_JUMP replaces the jump, as grub-install(8)
# does. The core image's first sector has the number and count of its other sectors at BLOCK_LIST.
KERNEL_SECTOR, DRIVE_CHECK, NO_JUMP = 0x5C, 0x66, b"\x90\x90"
BLOCK_LIST = SECTOR - 12
SERIAL_DEFAULTS = 'GRUB_TERMINAL="console serial"\nGRUB_SERIAL_COMMAND="serial --speed=115200"\n'
# Words of a kernel's command line that are plain words to a shell and to GRUB's script, too.
WORD = re.compile(r"[A-Za-z0-9_@%+=:,./~^!*?\[\]-]+")


@dataclass(frozen=True)
class Grub:
    """GRUB for UEFI, and for BIOS on machines that have one."""

    table: DiskLabel
    architecture: Architecture = AMD64

    @property
    def _has_bios(self) -> bool:
        return "bios" in self.architecture.image.firmwares

    @property
    def _platforms(self) -> tuple[str, ...]:
        return (*([BIOS] if self._has_bios else []), self.architecture.image.grub)

    @property
    def _efi_modules(self) -> tuple[str, str]:
        """A file of GRUB for UEFI, and its package."""
        file = f"{MODULES}/{self.architecture.image.grub}/moddep.lst"
        return file, f"grub-efi-{self.architecture.name}-bin"

    def needs(self) -> Iterator[Need]:
        key = "boot-loader"
        if self._has_bios:
            yield needs.package("grub-pc-bin", BIOS_IMAGE, "GRUB for BIOS", key)
        file, package = self._efi_modules
        yield needs.package(package, file, "GRUB for UEFI", key)
        yield needs.package("grub2-common", UPDATE_GRUB, "GRUB's menu", key)

    def signed_needs(self) -> Iterator[Need]:
        image, programs = self.architecture.image, signed(self.architecture)
        for name in (image.efi_program, image.second_stage):
            file, package = programs[name]
            yield needs.package(package, file, "Secure Boot", "boot-loader")

    def rewrites(self) -> Iterator[tuple[str, str]]:
        yield from boot.menu_rewrites(f"{DIRECTORY}/grub.cfg", DEFAULTS)
        if self._has_bios:
            yield f"{DIRECTORY}/{BIOS}/core.img", boot.PROGRAM
        for name in signed(self.architecture):
            yield f"{ESP}/EFI/BOOT/{name}", boot.PROGRAM
        for path in (EARLY, f"{ESP}/EFI/debian/grub.cfg"):
            yield path, "give the file another name: the stage writes this one"

    def check(self, target: Target) -> None:
        if self._has_bios:
            boot.need(target, BIOS_IMAGE, "grub-pc-bin", "GRUB for BIOS")
        boot.need(target, *self._efi_modules, "GRUB for UEFI")
        boot.need(target, UPDATE_GRUB, "grub2-common", "GRUB's menu")

    def volumes(self) -> list[Volume]:
        esp = Volume("esp", "vfat", ESP)
        for_core = [Volume("bios-boot", "none")] if self.table == "gpt" and self._has_bios else []
        return [*for_core, esp]

    def prepare(self, target: Target, booting: Booting) -> None:
        self.write_programs(target, booting)
        target.write(DEFAULTS, _defaults(booting.command_line, serial=self.has_serial))
        target.write(f"{DIRECTORY}/grub.cfg", _menu(booting, serial=self.has_serial))

    @property
    def has_serial(self) -> bool:
        """Whether the menu needs a driver of the serial port, which is no console of UEFI."""
        return self.architecture.image.grub_serial

    def write_programs(self, target: Target, booting: Booting) -> None:
        """Puts GRUB's modules and core images into the tree, without a menu."""
        words = booting.command_line.split()
        if strange := next((w for w in words if not WORD.fullmatch(w)), None):
            raise StageError(
                f"the word {strange!r} of {kernels.COMMAND_LINE} cannot be written to GRUB's menu",
                hint="Leave out quotes, '$', '\\', ';', '&', '|', '<', '>', '{' and '}'.",
            )
        for platform in self._platforms:
            _copy_modules(target, platform)
        find_boot = f"search.fs_uuid {booting.boot_uuid} root\nset prefix=($root){DIRECTORY}\n"
        target.write(EARLY, find_boot)
        known = (*COMMON, FILE_SYSTEMS[booting.file_system])
        if self._has_bios:
            _make_core(target, BIOS, f"{DIRECTORY}/{BIOS}/core.img", (*known, "biosdisk"))
        image = self.architecture.image
        if self._is_signed(target):
            for name, (source, _) in signed(self.architecture).items():
                _copy(target, source, f"{ESP}/EFI/BOOT/{name}")
            # The signed program reads its menu from this directory, wherever it was started from.
            menu = f"{find_boot}configfile $prefix/grub.cfg\n"
            target.write(f"{ESP}/EFI/debian/grub.cfg", menu)
        else:
            target.make_directory(f"{ESP}/EFI/BOOT")
            path = f"{ESP}/EFI/BOOT/{image.efi_program}"
            _make_core(target, image.grub, path, (*known, "fat"))
        target.remove(EARLY)

    def _is_signed(self, target: Target) -> bool:
        """Whether the image has all programs that Secure Boot needs."""
        return all(target.exists(source) for source, _ in signed(self.architecture).values())

    def install(self, target: Target, disk: Path, parts: Sequence[Volume]) -> list[str]:
        return []

    def write_boot_code(self, target: Target, disk: Path, parts: Sequence[Volume]) -> None:
        if not self._has_bios:
            return
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


def signed(architecture: Architecture) -> dict[str, tuple[str, str]]:
    """The programs signed for Secure Boot (the file, its package), by their names on the ESP."""
    image, name = architecture.image, architecture.name
    shim, grub = "/usr/lib/shim", f"{MODULES}/{image.grub}-signed"
    return {
        image.efi_program: (f"{shim}/shim{image.efi}.efi.signed", "shim-signed"),
        image.second_stage: (
            f"{grub}/grub{image.efi}.efi.signed",
            f"grub-efi-{name}-signed",
        ),
        f"mm{image.efi}.efi": (
            f"{shim}/mm{image.efi}.efi.signed",
            f"shim-helpers-{name}-signed",
        ),
    }


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


def _defaults(command_line: str, *, serial: bool) -> str:
    """Settings for update-grub(8), which adds the root file system itself."""
    words = [w for w in command_line.split() if not w.startswith("root=") and w != "ro"]
    return (
        "# The kernel's command line and the consoles of this image.\n"
        "GRUB_TIMEOUT=1\n"
        f"GRUB_CMDLINE_LINUX={shlex.quote(' '.join(words))}\n"
        + (SERIAL_DEFAULTS if serial else "GRUB_TERMINAL=console\n")
    )


def terminals(*, serial: bool) -> str:
    """The lines of a menu about the terminals."""
    if not serial:
        return "terminal_input console\nterminal_output console\n"
    return "serial --speed=115200\nterminal_input console serial\nterminal_output console serial\n"


def _menu(booting: Booting, *, serial: bool) -> str:
    """The text of grub.cfg for the first boots, until update-grub(8) replaces it."""
    return (
        "# Made with the image; update-grub makes it anew.\n"
        f"{terminals(serial=serial)}"
        "set timeout=1\n"
        f"search --no-floppy --fs-uuid --set=root {booting.boot_uuid}\n"
        "menuentry 'Linux' {\n"
        f"\tlinux {booting.kernel.image} {booting.command_line}\n"
        f"\tinitrd {booting.kernel.initrd}\n"
        "}\n"
    )

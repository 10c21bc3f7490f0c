"""Verifies the boot from firmware to kernel: each step must lead to the next one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import IO

from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.record import Architecture
from particle_agent.contract.architectures.table import ARCHITECTURES
from particle_agent.contract.contents import content_of
from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree
from particle_agent.verification import deployments, menus, pe, syslinux
from particle_agent.verification.table import FIRST_LOGICAL, SECTOR, PartitionEntry, PartitionTable
from particle_agent.verification.volumes import FoundVolume

BOOT_CODE_BYTES = 440
# grub-core/boot/i386/pc/boot.S has the sector of the core image, diskboot.S the sector of its rest.
# The code for a hybrid image (HYBRID_BOOT) has the sector in another place.
GRUB_SIGN, GRUB_SECTOR, GRUB_BLOCK_LIST = b"GRUB", 0x5C, SECTOR - 12
GRUB_HYBRID_SECTOR = 0x1B0
# The error texts of mbr/mbr.S and gptmbr.S of syslinux, which no other boot code contains.
SYSLINUX_SIGNS = (b"Missing operating system.", b"Missing OS")
# core/diskstart.inc and extlinux: the first sector of the file system contains one of these.
SYSLINUX_SECTORS = (b"SYSLINUX", b"EXTLINUX")
EFI_DIRECTORY = "/EFI/BOOT"
# The architectures by the names of the programs that their firmware starts, in lower case.
EFI_PROGRAMS = {each.image.efi_program.lower(): each for each in ARCHITECTURES.values()}
EFI_LIMIT = 32 << 20
SHIM_SIGN = b"UEFI SHIM\n"
SYSTEMD_BOOT_SIGN = b"LoaderInfo: systemd-boot"
ESP_TYPES = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef")


def check(
    disk: IO[bytes],
    size: int,
    table: PartitionTable | None,
    found: Sequence[FoundVolume],
    findings: Findings,
) -> None:
    """Reports broken steps of the boot, with BIOS and with UEFI."""
    bios = _check_bios(disk, size, table, found, findings)
    programs = _check_efi(found, findings)
    meant = _meant(found)
    efi = bool(programs & {program.lower() for program in meant} if meant else programs)
    # A disk without a type that says so is a PC's: an MBR knows no types of architectures.
    wanted = " or ".join(meant or [AMD64.image.efi_program])
    deployments.check(found, findings)
    if not bios and not efi:
        message = f"there is no boot code and no EFI/BOOT/{wanted}"
        if table is None and found:
            content = content_of(found[0].kind)
            message += f": the whole disk is {content.words}. {content.advice}"
        findings.add("boot-loader-missing", "disk", message)
    elif not efi and (system := next((v for v in found if _is_for_uefi(v)), None)):
        message = f"there is no EFI/BOOT/{wanted}, which UEFI starts"
        findings.add("boot-loader-file-missing", system.name, message)


# BIOS


def _check_bios(
    disk: IO[bytes],
    size: int,
    table: PartitionTable | None,
    found: Sequence[FoundVolume],
    findings: Findings,
) -> bool:
    """Whether the disk has boot code for BIOS, intact or broken. Reports broken code."""
    disk.seek(0)
    code = disk.read(SECTOR)[:BOOT_CODE_BYTES]
    if GRUB_SIGN in code:
        _check_grub_code(disk, size, code, findings)
        _check_grub_menus(found, findings)
        return True
    if any(sign in code for sign in SYSLINUX_SIGNS):
        _check_syslinux(disk, table, found, findings)
        return True
    # Other boot code is unknown. It may be right.
    return any(code) and table is not None and _is_code(code)


def _is_code(code: bytes) -> bool:
    """Whether the code has more than the few bytes that partitioning tools write."""
    return len(code.rstrip(b"\0")) > 16


def _check_grub_code(disk: IO[bytes], size: int, code: bytes, findings: Findings) -> None:
    """Reports a missing core image.

    GRUB's MBR contains the sector number of the core image. The core image's first sector contains
    the sector number of its rest.
    """
    numbers = (code[place : place + 8] for place in (GRUB_SECTOR, GRUB_HYBRID_SECTOR))
    sector = next((n for n in (int.from_bytes(number, "little") for number in numbers) if n), 0)
    core = _sector(disk, sector, size)
    rest = int.from_bytes(core[GRUB_BLOCK_LIST : GRUB_BLOCK_LIST + 8], "little") if core else 0
    for place, data in ((sector, core), (rest, _sector(disk, rest, size))):
        if not any(data):
            message = f"GRUB's core image should be in sector {place}, which is empty"
            findings.add("boot-code-broken", "disk", message)
            return


def _sector(disk: IO[bytes], number: int, size: int) -> bytes:
    if not 0 < number < size // SECTOR:
        return b""
    disk.seek(number * SECTOR)
    return disk.read(SECTOR)


def _check_syslinux(
    disk: IO[bytes], table: PartitionTable | None, found: Sequence[FoundVolume], findings: Findings
) -> None:
    marked = _marked(table) if table else []
    if len(marked) > 1:
        numbers = ", ".join(str(entry.number) for entry in marked)
        message = f"partitions {numbers} are marked; syslinux boots none of several"
        findings.add("boot-partition-ambiguous", "partition table", message)
        return
    active = [e for e in marked if table is not None and e.end <= table.last]
    if not active:
        message = "no partition is marked as the one that syslinux boots"
        findings.add("boot-partition-not-active", "partition table", message)
        return
    place = f"partition {active[0].number}"
    disk.seek(active[0].start)
    sector = disk.read(SECTOR)
    if not any(sign in sector for sign in SYSLINUX_SECTORS):
        findings.add("boot-code-broken", place, "its first sector lacks the code of extlinux")
    volume = next((v for v in found if v.entry == active[0]), None)
    if volume is None or not volume.kind:
        findings.add("boot-loader-file-missing", place, "it has no known file system")
    if volume is None or volume.tree is None:
        return
    directory = syslinux.directory(volume.tree)
    if directory is None:
        findings.add("boot-loader-file-missing", place, f"there is no {syslinux.LOADER}")
        return
    path = f"{directory}/{syslinux.LOADER}"
    core = volume.tree.read_bytes(path, syslinux.CORE_LIMIT)
    if why := syslinux.core_fault(core, sector, disk, active[0].start):
        findings.add("boot-code-broken", place, f"{path}: {why}")
    if not volume.tree.is_file(f"{directory}/{syslinux.MODULE}"):
        message = f"there is no {directory}/{syslinux.MODULE}"
        findings.add("boot-loader-file-missing", place, message)
    _check_syslinux_menus(volume.tree, directory, place, found, findings)


def _marked(table: PartitionTable) -> list[PartitionEntry]:
    """The partitions that syslinux' boot code considers. It boots one, and stops if there are more.

    On a GPT disk (mbr/gptmbr.S) these are all marked partitions. On an MBR disk (mbr/mbr.S) these
    are the marked primary partitions, or else the first marked logical partition.
    """
    marked = [entry for entry in table.entries if entry.active]
    if table.label == "gpt":
        return marked
    return [e for e in marked if e.number < FIRST_LOGICAL] or marked[:1]


def _check_syslinux_menus(
    tree: Tree, directory: str, place: str, found: Sequence[FoundVolume], findings: Findings
) -> None:
    read = syslinux.read(tree, directory)
    items = [item for menu in read for item in menu.items]
    if not items:
        findings.add("boot-menu-missing", place, f"{directory} has no menu that boots a system")
    elif (why := syslinux.stalls(tree, read)) is not None:
        findings.add("boot-menu-default-missing", place, why)
    for item in items[: menus.ENTRIES_LIMIT]:
        menus.check_item(item, (tree,), found, findings)


def _check_grub_menus(found: Sequence[FoundVolume], findings: Findings) -> None:
    kernels, seen = 0, False
    for volume in found:
        for tree, menu in itertools.product(volume.trees, menus.GRUB_MENUS):
            if tree.is_file(menu):
                seen = True
                kernels += menus.check_grub(volume, tree, menu, found, findings)
    readable = all(volume.tree is not None for volume in found if volume.kind)
    if not kernels and (seen or readable) and not any(_entries(v) for v in found):
        findings.add("boot-menu-missing", "disk", "no grub.cfg boots a kernel")


def _entries(volume: FoundVolume) -> bool:
    """Whether there are entries that GRUB's `blscfg` would read."""
    return any(next(menus.entry_items(tree), None) for tree in volume.trees)


# UEFI


def _check_efi(found: Sequence[FoundVolume], findings: Findings) -> set[str]:
    """The programs that a firmware starts, intact or broken, by names in lower case.

    Reports the broken ones.
    """
    systems = [v for v in found if v.tree is not None and v.kind == "vfat"]
    programs = set()
    for volume in systems:
        assert volume.tree is not None
        directory = {name.lower(): name for name in volume.tree.names(EFI_DIRECTORY)}
        for name, architecture in EFI_PROGRAMS.items():
            if name not in directory:
                continue
            programs.add(name)
            program = _program(volume, directory, name, architecture, findings)
            if program is not None:
                _check_started(program, volume, found, findings)
    return programs


def _program(
    volume: FoundVolume,
    directory: Mapping[str, str],
    name: str,
    architecture: Architecture,
    findings: Findings,
) -> bytes | None:
    """The boot loader that UEFI starts, directly or through the shim; reports a broken one.

    `directory` has the real names of the programs, by their names in lower case.
    """
    assert volume.tree is not None
    path = f"{EFI_DIRECTORY}/{directory[name]}"
    program = volume.tree.read_bytes(path, EFI_LIMIT)
    fault = None
    if not pe.is_whole(program, volume.tree.size(path)):
        fault = f"{path} is no program, or it is cut off"
    elif wrong := _wrong_machine(program, path, architecture):
        fault = wrong
    elif SHIM_SIGN in program:
        second = architecture.image.second_stage
        if second not in directory:
            fault = f"the shim starts {EFI_DIRECTORY}/{second}, which is missing"
        else:
            path = f"{EFI_DIRECTORY}/{directory[second]}"
            program = volume.tree.read_bytes(path, EFI_LIMIT)
            fault = _wrong_machine(program, path, architecture)
    if fault is None:
        return program
    findings.add("boot-loader-file-missing", volume.name, fault)
    return None


def _wrong_machine(program: bytes, path: str, wanted: Architecture) -> str | None:
    """The fault of a program for other machines than its name says; None for none."""
    machine = pe.machine(program)
    if machine in (0, wanted.image.pe_machine):
        return None
    others = ARCHITECTURES.values()
    known = next((each.name for each in others if each.image.pe_machine == machine), None)
    shown = known or f"the unknown machine {machine:#06x}"
    return f"{path} is a program for {shown}, and its name is that of {wanted.name}"


def _meant(found: Sequence[FoundVolume]) -> list[str]:
    """The programs that UEFI would start from a root partition whose type is of an architecture."""
    types = {volume.entry.type for volume in found if volume.entry is not None}
    images = [each.image for each in ARCHITECTURES.values()]
    return [image.efi_program for image in images if image.root_type in types]


def _is_for_uefi(volume: FoundVolume) -> bool:
    return volume.entry is not None and volume.entry.type in ESP_TYPES


def _check_started(
    program: bytes, volume: FoundVolume, found: Sequence[FoundVolume], findings: Findings
) -> None:
    """Verifies the menus of the boot loader that UEFI starts, directly or through the shim."""
    assert volume.tree is not None
    if SYSTEMD_BOOT_SIGN in program:
        _check_entries(found, findings)
    elif GRUB_SIGN in program:
        for name in volume.tree.names("/EFI"):
            # The first menu of the signed GRUB, which searches for the real menu.
            if volume.tree.is_file(f"/EFI/{name}/grub.cfg"):
                menu = f"/EFI/{name}/grub.cfg"
                menus.check_grub(volume, volume.tree, menu, found, findings)
        _check_grub_menus(found, findings)


def _check_entries(found: Sequence[FoundVolume], findings: Findings) -> None:
    """Verifies the entries of systemd-boot(7), which are on FAT partitions."""
    count = 0
    for volume in found:
        if volume.tree is None or volume.kind != "vfat":
            continue
        for item in menus.entry_items(volume.tree):
            count += 1
            menus.check_item(item, volume.trees, found, findings)
        for path in menus.unified_images(volume.tree):
            count += 1
            menus.check_unified(volume.tree, path, found, findings)
    if not count:
        message = "systemd-boot has no entry and no unified kernel image"
        findings.add("boot-menu-missing", "disk", message)

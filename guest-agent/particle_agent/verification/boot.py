"""The way from the firmware to the kernel: each step must lead to the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree
from particle_agent.verification import menus, pe, syslinux
from particle_agent.verification.table import FIRST_LOGICAL, SECTOR, PartitionEntry, PartitionTable
from particle_agent.verification.volumes import FoundVolume

BOOT_CODE_BYTES = 440
# grub-core/boot/i386/pc/boot.S: the sector of the core image; diskboot.S: that of its rest.
GRUB_SIGN, GRUB_SECTOR, GRUB_BLOCK_LIST = b"GRUB", 0x5C, SECTOR - 12
# mbr/mbr.S and gptmbr.S of syslinux say these when they find nothing, and no others do so.
SYSLINUX_SIGNS = (b"Missing operating system.", b"Missing OS")
# core/diskstart.inc and extlinux: what the first sector of the file system has.
SYSLINUX_SECTORS = (b"SYSLINUX", b"EXTLINUX")
EFI_DIRECTORY = "/EFI/BOOT"
EFI_PROGRAM = "bootx64.efi"
EFI_LIMIT = 32 << 20
SHIM_SIGN = b"UEFI SHIM\n"
SYSTEMD_BOOT_SIGN = b"LoaderInfo: systemd-boot"
SECOND_STAGE = "grubx64.efi"
ESP_TYPES = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef")


def check(
    disk: IO[bytes],
    size: int,
    table: PartitionTable | None,
    found: Sequence[FoundVolume],
    findings: Findings,
) -> None:
    """Tells where the way breaks off, under BIOS and under UEFI."""
    bios = _check_bios(disk, size, table, found, findings)
    efi = _check_efi(found, findings)
    if not bios and not efi:
        findings.add("boot-loader-missing", "disk", "no boot code, and no EFI/BOOT/BOOTX64.EFI")
    elif not efi and (system := next((v for v in found if _is_for_uefi(v)), None)):
        told = "there is no EFI/BOOT/BOOTX64.EFI, which UEFI starts"
        findings.add("boot-loader-file-missing", system.name, told)


# BIOS


def _check_bios(
    disk: IO[bytes],
    size: int,
    table: PartitionTable | None,
    found: Sequence[FoundVolume],
    findings: Findings,
) -> bool:
    """Whether there is something for BIOS, be it whole or not."""
    disk.seek(0)
    code = disk.read(SECTOR)[:BOOT_CODE_BYTES]
    if GRUB_SIGN in code:
        _check_grub_code(disk, size, code, findings)
        _check_grub_menus(found, findings)
        return True
    if any(sign in code for sign in SYSLINUX_SIGNS):
        _check_syslinux(disk, table, found, findings)
        return True
    # Any other boot code is unknown, and may well be right.
    return any(code) and table is not None and _is_code(code)


def _is_code(code: bytes) -> bool:
    """Whether the first sector has more than the few bytes that partitioning tools leave there."""
    return len(code.rstrip(b"\0")) > 16


def _check_grub_code(disk: IO[bytes], size: int, code: bytes, findings: Findings) -> None:
    """GRUB's first sector has the place of the core image, whose first has that of its rest."""
    sector = int.from_bytes(code[GRUB_SECTOR : GRUB_SECTOR + 8], "little")
    core = _sector(disk, sector, size)
    rest = int.from_bytes(core[GRUB_BLOCK_LIST : GRUB_BLOCK_LIST + 8], "little") if core else 0
    for place, data in ((sector, core), (rest, _sector(disk, rest, size))):
        if not any(data):
            told = f"GRUB's core image should be in sector {place}, and nothing is there"
            findings.add("boot-code-broken", "disk", told)
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
        told = (
            f"partitions {', '.join(str(e.number) for e in marked)} are marked, and syslinux stops"
        )
        findings.add("boot-partition-ambiguous", "partition table", told)
        return
    active = [e for e in marked if table is not None and e.end <= table.last]
    if not active:
        findings.add("boot-partition-not-active", "partition table", "syslinux boots the one")
        return
    place = f"partition {active[0].number}"
    disk.seek(active[0].start)
    sector = disk.read(SECTOR)
    if not any(sign in sector for sign in SYSLINUX_SECTORS):
        findings.add("boot-code-broken", place, "its first sector is not that of extlinux")
    volume = next((v for v in found if v.entry == active[0]), None)
    if volume is None or not volume.kind:
        findings.add("boot-loader-file-missing", place, "it has no file system that is known")
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
        told = f"there is no {directory}/{syslinux.MODULE}"
        findings.add("boot-loader-file-missing", place, told)
    _check_syslinux_menus(volume.tree, directory, place, found, findings)


def _marked(table: PartitionTable) -> list[PartitionEntry]:
    """The partitions of which syslinux' boot code boots the only one, or stops at two.

    mbr/gptmbr.S; that for an MBR (mbr/mbr.S) looks for a logical one when no other is marked, and
    takes the first.
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
        findings.add("boot-menu-missing", place, f"{directory} has none that boots something")
    elif (why := syslinux.stalls(tree, read)) is not None:
        findings.add("boot-menu-default-missing", place, why)
    for item in items[: menus.ENTRIES_LIMIT]:
        menus.check_item(item, tree, found, findings)


def _check_grub_menus(found: Sequence[FoundVolume], findings: Findings) -> None:
    kernels, seen = 0, False
    for volume in found:
        for menu in menus.GRUB_MENUS:
            if volume.tree is not None and volume.tree.is_file(menu):
                seen = True
                kernels += menus.check_grub(volume, menu, found, findings)
    readable = all(volume.tree is not None for volume in found if volume.kind)
    if not kernels and (seen or readable) and not any(_entries(v) for v in found):
        findings.add("boot-menu-missing", "disk", "no grub.cfg boots a kernel")


def _entries(volume: FoundVolume) -> bool:
    """Whether there are entries that GRUB's `blscfg` takes, too."""
    return volume.tree is not None and bool(next(menus.entry_items(volume.tree), None))


# UEFI


def _check_efi(found: Sequence[FoundVolume], findings: Findings) -> bool:
    """Whether there is something for UEFI, be it whole or not."""
    systems = [v for v in found if v.tree is not None and v.kind == "vfat"]
    there = False
    for volume in systems:
        assert volume.tree is not None
        directory = {name.lower(): name for name in volume.tree.names(EFI_DIRECTORY)}
        if EFI_PROGRAM not in directory:
            continue
        there = True
        path = f"{EFI_DIRECTORY}/{directory[EFI_PROGRAM]}"
        program = volume.tree.read_bytes(path, EFI_LIMIT)
        if not pe.is_whole(program, volume.tree.size(path)):
            told = f"{path} is no program, or cut off"
            findings.add("boot-loader-file-missing", volume.name, told)
            continue
        if SHIM_SIGN in program:
            if SECOND_STAGE not in directory:
                told = f"the shim starts {EFI_DIRECTORY}/{SECOND_STAGE}, which is missing"
                findings.add("boot-loader-file-missing", volume.name, told)
                continue
            second = f"{EFI_DIRECTORY}/{directory[SECOND_STAGE]}"
            program = volume.tree.read_bytes(second, EFI_LIMIT)
        _check_started(program, volume, found, findings)
    return there


def _is_for_uefi(volume: FoundVolume) -> bool:
    return volume.entry is not None and volume.entry.type in ESP_TYPES


def _check_started(
    program: bytes, volume: FoundVolume, found: Sequence[FoundVolume], findings: Findings
) -> None:
    """What the program that UEFI starts in the end will look for."""
    assert volume.tree is not None
    if SYSTEMD_BOOT_SIGN in program:
        _check_entries(found, findings)
    elif GRUB_SIGN in program:
        for name in volume.tree.names("/EFI"):
            # The signed GRUB's first menu, which looks for the real one.
            if volume.tree.is_file(f"/EFI/{name}/grub.cfg"):
                menus.check_grub(volume, f"/EFI/{name}/grub.cfg", found, findings)
        _check_grub_menus(found, findings)


def _check_entries(found: Sequence[FoundVolume], findings: Findings) -> None:
    """systemd-boot(7) takes entries from the EFI system partition and the extended one."""
    count = 0
    for volume in found:
        if volume.tree is None or volume.kind != "vfat":
            continue
        for item in menus.entry_items(volume.tree):
            count += 1
            menus.check_item(item, volume.tree, found, findings)
        for path in menus.unified_images(volume.tree):
            count += 1
            menus.check_unified(volume.tree, path, found, findings)
    if not count:
        findings.add("boot-menu-missing", "disk", "systemd-boot has no entry and no kernel")

"""Inspects disks and systems without changing them.

The disks are untrusted. Their file systems are mounted read-only, in a VM that is thrown away.
Paths are resolved with the file system's root, and each read has a limit.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.table import ARCHITECTURES
from particle_agent.contract.inspection import (
    Account,
    Deployment,
    FileSystem,
    Inspection,
    OsReleaseField,
    Package,
    Partition,
    System,
)
from particle_agent.disk.reading import Tree, ask, identify, mounted
from particle_agent.ostree.reading import systems as systems_of
from particle_agent.verification import deployments, volumes
from particle_agent.verification.table import ISO_UNUSED, has_mbr

TEXT_LIMIT = 4096
SYSLINUX_CODE = Path("/usr/lib/syslinux/mbr")
BOOT_CODE_BYTES = 440
# An error text of isolinux' code for the first sector of a hybrid image (mbr/isohdpfx.S).
ISOLINUX_SIGN = b"isolinux.bin missing"
# Texts in the programs of boot loaders, and the names of the boot loaders.
EFI_SIGNS = (
    (b"LoaderInfo: systemd-boot", "systemd-boot"),
    (b"GRUB", "grub"),
    (b"UEFI SHIM", "shim"),
)
STANZA = re.compile(r"^(Package|Version|Architecture|Status|Installed-Size): (.*)$", re.MULTILINE)
OS_RELEASE = re.compile(r"""^([A-Z][A-Z0-9_]*)=["']?(.*?)["']?$""", re.MULTILINE)


def of_disk(device: Path) -> Inspection:
    """Inspects a disk. For a file system that cannot be mounted, `used` is None."""
    with volumes.readable(device) as readable:
        return _of_readable(readable)


def _of_readable(device: Path) -> Inspection:
    size = int(ask("blockdev", "--getsize64", str(device)) or 0)
    table = _table(device)
    sector = int(table.get("sectorsize", 512))
    loaders = [_boot_code(device)]
    systems: list[System] = []
    deployed: list[Deployment] = []
    partitions = []
    kernels: list[str] = []
    for number, entry in enumerate(_entries(table, device, size), start=1):
        with _mounted(Path(str(entry["node"]))) as (file_system, place):
            if file_system is not None and place is not None:
                tree = Tree(place)
                loaders += _loaders(tree)
                kernels += _kernels(tree, "/")
                inside = list(systems_of(tree, file_system.kind))
                known = list(deployments.described(tree, inside))
                deployed += [deployment for deployment, _ in known]
                systems += map(of_system, [system for _, system in known] or inside)
        if table or file_system is not None:
            partitions.append(
                Partition(
                    number=number,
                    start=int(entry["start"]) * sector,
                    size=int(entry["size"]) * sector,
                    type=str(entry["type"]),
                    name=str(entry.get("name", "")),
                    file_system=file_system,
                )
            )
    return Inspection(
        size=size,
        table=str(table["label"]) if table else None,
        sector_size=sector,
        partitions=tuple(partitions),
        boot_loaders=tuple(dict.fromkeys(filter(None, loaders))),
        system=_with_kernels(systems[0], kernels) if systems else None,
        deployments=tuple(deployed),
    )


def _table(device: Path) -> dict[str, Any]:
    """The partition table in the form of sfdisk(8); empty without one.

    sfdisk takes the first sector of FAT and of BitLocker for an MBR.
    """
    told = json.loads(ask("sfdisk", "--json", str(device)) or "{}")
    found: dict[str, Any] = told.get("partitiontable", {})
    with device.open("rb") as disk:
        return {} if found.get("label") == "dos" and not has_mbr(disk) else found


def _entries(table: Mapping[str, Any], device: Path, size: int) -> list[dict[str, Any]]:
    """The partitions of a table of sfdisk(8), or the whole disk in their form.

    The first partition of a hybrid image is the file system of the whole disk.
    """
    entries = [dict(entry) for entry in table.get("partitions", ())]
    if not table:
        return [{"node": str(device), "start": 0, "size": size // 512, "type": ""}]
    if volumes.hybrid(device):
        for entry in entries:
            if int(entry["start"]) * 512 <= ISO_UNUSED:
                entry["node"] = str(device)
    return entries


def of_system(tree: Tree) -> System:
    """Inspects a root file system."""
    release = next(
        (text for p in ("/etc/os-release", "/usr/lib/os-release") if (text := tree.read(p))), ""
    )
    return System(
        os_release=tuple(
            OsReleaseField(key=k, value=v[:TEXT_LIMIT])
            for k, v in OS_RELEASE.findall(release)[:100]
        ),
        hostname=tree.read("/etc/hostname").strip()[:64],
        kernels=tuple(_kernels(tree, "/boot") or _kernels_of_commit(tree)),
        packages=tuple(_packages(tree)),
        accounts=tuple(_accounts(tree)),
    )


def _with_kernels(system: System, found: list[str]) -> System:
    """The system with the kernels of other partitions, because /boot may be a partition."""
    kernels = tuple(dict.fromkeys((*system.kernels, *found)))
    return replace(system, kernels=kernels)


@contextmanager
def _mounted(node: Path) -> Iterator[tuple[FileSystem | None, Path | None]]:
    """The file system of a partition, and its mount point. Both are None if there is none.

    The mount point is None if the file system cannot be mounted.
    """
    file_system = identify(node)
    if file_system is None:
        yield None, None
        return
    with mounted(node, file_system.kind) as place:
        if place is None:
            yield file_system, None
            return
        status = os.statvfs(place)
        size = status.f_blocks * status.f_frsize
        used = size - status.f_bfree * status.f_frsize
        yield replace(file_system, size=size, used=used), place


def _kernels(tree: Tree, directory: str) -> list[str]:
    names = tree.names(directory)
    return [n.removeprefix("vmlinuz-") for n in names if n.startswith("vmlinuz-")]


def _kernels_of_commit(tree: Tree) -> list[str]:
    """The kernels at the place where OSTree looks for them."""
    modules = "/usr/lib/modules"
    return [name for name in tree.names(modules) if tree.is_file(f"{modules}/{name}/vmlinuz")]


def _packages(tree: Tree) -> Iterator[Package]:
    for stanza in tree.read("/var/lib/dpkg/status").split("\n\n"):
        fields = {key: value[:TEXT_LIMIT] for key, value in STANZA.findall(stanza)}
        if fields.get("Status", "").endswith(" installed"):
            size = fields.get("Installed-Size", "")
            yield Package(
                name=fields.get("Package", ""),
                version=fields.get("Version", ""),
                architecture=fields.get("Architecture", ""),
                # Debian Policy 5.6.20: the size is in KiB.
                size=int(size) * 1024 if re.fullmatch("[0-9]{1,12}", size) else 0,
            )


def _accounts(tree: Tree) -> Iterator[Account]:
    """The accounts of root and of users with IDs from 1000 (Debian Policy 9.2.2)."""
    shadow = dict(
        line.split(":")[:2] for line in tree.read("/etc/shadow").splitlines() if ":" in line
    )
    for line in tree.read("/etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) != 7 or not fields[2].isdecimal():
            continue
        uid = int(fields[2])
        if uid != 0 and not 1000 <= uid < 60000:
            continue
        password = shadow.get(fields[0], "")
        state: Literal["set", "empty", "locked"] = "set" if password.startswith("$") else "locked"
        yield Account(
            name=fields[0], uid=uid, shell=fields[6], password=state if password else "empty"
        )


def _boot_code(device: Path) -> str:
    """The boot loader whose code is in the first sector of a disk; empty for unknown code."""
    with device.open("rb") as disk:
        sector = disk.read(512)
    if b"GRUB" in sector[:BOOT_CODE_BYTES]:
        return "grub (BIOS)"
    if ISOLINUX_SIGN in sector:
        return "isolinux (BIOS)"
    for code in SYSLINUX_CODE.glob("*mbr*.bin"):
        if sector.startswith(code.read_bytes()):
            return "syslinux (BIOS)"
    return ""


def _loaders(tree: Tree) -> Iterator[str]:
    """The UEFI boot loaders in a file system, at the paths of the firmware."""
    names = {n.lower(): n for n in tree.names("/EFI/BOOT")}
    for architecture in ARCHITECTURES.values():
        if default := names.get(architecture.image.efi_program.lower()):
            program = tree.read_bytes(f"/EFI/BOOT/{default}")
            found = next((name for sign, name in EFI_SIGNS if sign in program), "unknown")
            other = "" if architecture is AMD64 else f", {architecture.name}"
            yield f"{found} (UEFI{other})"
    if any(name.lower().endswith(".efi") for name in tree.names("/EFI/Linux")):
        yield "unified kernel image (UEFI)"

"""What a disk or a system holds, read without changing it.

The file systems are mounted read-only, in a VM that is thrown away: their content is nobody's we
know. Paths in them are resolved as inside of them, and only so much of a file is read.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from particle_agent.errors import StageError
from particle_agent.target import Reporter, Target

SERIAL = "inspected"
FILE_LIMIT = 32 << 20
TEXT_LIMIT = 4096
# mount(8): the journal of a file system that was not unmounted is not written on a read-only disk.
MOUNT_OPTIONS = {"ext3": "ro,noload", "ext4": "ro,noload", "xfs": "ro,norecovery"}
MOUNTED = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "squashfs", "iso9660", "erofs")
COMMAND_SECONDS = 120.0
SYSLINUX_CODE = Path("/usr/lib/syslinux/mbr")
BOOT_CODE_BYTES = 440
# What a boot loader calls itself within its program.
EFI_SIGNS = ((b"LoaderInfo: systemd-boot", "systemd-boot"), (b"GRUB", "grub"))
STANZA = re.compile(r"^(Package|Version|Architecture|Status): (.*)$", re.MULTILINE)
OS_RELEASE = re.compile(r"""^([A-Z][A-Z0-9_]*)=["']?(.*?)["']?$""", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    """A file system; sizes in bytes, `used` None when it could not be mounted."""

    kind: str
    label: str
    uuid: str
    size: int | None = None
    used: int | None = None


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition: where it starts and how large it is, in bytes; its type as sfdisk(8) tells."""

    number: int
    start: int
    size: int
    type: str
    name: str
    file_system: FileSystem | None


@dataclass(frozen=True, kw_only=True)
class Package:
    """An installed Debian package."""

    name: str
    version: str
    architecture: str


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user whom a person or root logs in as."""

    name: str
    uid: int
    shell: str
    password: Literal["set", "empty", "locked"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One line of os-release(5)."""

    key: str
    value: str


@dataclass(frozen=True, kw_only=True)
class System:
    """A root file system."""

    os_release: tuple[Setting, ...]
    hostname: str
    kernels: tuple[str, ...]
    packages: tuple[Package, ...]
    accounts: tuple[Account, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A disk (`table` is None without a partition table), or a system alone (`size` is 0 then)."""

    size: int
    table: str | None
    partitions: tuple[Partition, ...]
    boot_loaders: tuple[str, ...]
    system: System | None


def of_disk(device: Path, reporter: Reporter) -> Inspection:
    """What is on a disk. A file system that cannot be mounted is told as such."""
    size = int(_ask("blockdev", "--getsize64", str(device)) or 0)
    table = json.loads(_ask("sfdisk", "--json", str(device)) or "{}").get("partitiontable", {})
    loaders = [_boot_code(device)]
    systems: list[System] = []
    partitions = []
    kernels: list[str] = []
    # Without a table there may be one file system on the whole disk.
    whole = [{"node": str(device), "start": 0, "size": size // 512, "type": ""}]
    sector = int(table.get("sectorsize", 512))
    for number, entry in enumerate(table.get("partitions", whole), start=1):
        node = Path(str(entry["node"]))
        with _mounted(node) as (file_system, place):
            if place is not None:
                target = Target(place, reporter, hostname="")
                loaders += _loaders(target)
                kernels += _kernels(target, "/")
                if _names(target, "/usr") and _names(target, "/etc"):
                    systems.append(of_system(target))
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
        partitions=tuple(partitions),
        boot_loaders=tuple(dict.fromkeys(filter(None, loaders))),
        system=_with_kernels(systems[0], kernels) if systems else None,
    )


def of_system(target: Target) -> System:
    """What is in a root file system."""
    release = next(
        (text for p in ("/etc/os-release", "/usr/lib/os-release") if (text := _read(target, p))), ""
    )
    return System(
        os_release=tuple(
            Setting(key=k, value=v[:TEXT_LIMIT]) for k, v in OS_RELEASE.findall(release)[:100]
        ),
        hostname=_read(target, "/etc/hostname").strip()[:64],
        kernels=tuple(_kernels(target, "/boot")),
        packages=tuple(_packages(target)),
        accounts=tuple(_accounts(target)),
    )


def _with_kernels(system: System, found: list[str]) -> System:
    """/boot may be a partition of its own."""
    kernels = tuple(dict.fromkeys((*system.kernels, *found)))
    return replace(system, kernels=kernels)


def _ask(*argv: str) -> str:
    """What a program prints; nothing when it fails, as it does on a disk that is not whole."""
    done = subprocess.run(
        argv, capture_output=True, timeout=COMMAND_SECONDS, check=False, stdin=subprocess.DEVNULL
    )
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


@contextmanager
def _mounted(node: Path) -> Iterator[tuple[FileSystem | None, Path | None]]:
    """The file system of a partition, mounted read-only if it can be."""
    lines = _ask("blkid", "--probe", "--output", "export", str(node)).splitlines()
    told = dict(line.partition("=")[::2] for line in lines)
    kind = told.get("TYPE", "")
    if not kind:
        yield None, None
        return
    file_system = FileSystem(kind=kind, label=told.get("LABEL", ""), uuid=told.get("UUID", ""))
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inspected-")))
        options = f"{MOUNT_OPTIONS.get(kind, 'ro')},nodev,nosuid,noexec"
        argv = ["mount", "-t", kind, "-o", options, str(node), str(place)]
        if kind not in MOUNTED or _status(argv) != 0:
            yield file_system, None
            return
        stack.callback(_status, ["umount", str(place)])
        status = os.statvfs(place)
        yield (
            FileSystem(
                kind=kind,
                label=file_system.label,
                uuid=file_system.uuid,
                size=status.f_blocks * status.f_frsize,
                used=(status.f_blocks - status.f_bfree) * status.f_frsize,
            ),
            place,
        )


def _status(argv: list[str]) -> int:
    return subprocess.run(
        argv, capture_output=True, timeout=COMMAND_SECONDS, check=False
    ).returncode


def _place(target: Target, path: str) -> Path | None:
    """Where a path lies; None for links that go round in a circle."""
    try:
        return target.path(path)
    except StageError:
        return None


def _names(target: Target, directory: str) -> list[str]:
    place = _place(target, directory)
    return sorted(os.listdir(place)) if place is not None and place.is_dir() else []


def _read_bytes(target: Target, path: str, limit: int = FILE_LIMIT) -> bytes:
    """The beginning of a regular file; nothing when there is none."""
    place = _place(target, path)
    if place is None or not place.is_file():
        return b""
    with place.open("rb") as file:
        return file.read(limit)


def _read(target: Target, path: str) -> str:
    return _read_bytes(target, path).decode("utf-8", "replace")


def _kernels(target: Target, directory: str) -> list[str]:
    names = _names(target, directory)
    return [n.removeprefix("vmlinuz-") for n in names if n.startswith("vmlinuz-")]


def _packages(target: Target) -> Iterator[Package]:
    for stanza in _read(target, "/var/lib/dpkg/status").split("\n\n"):
        fields = {key: value[:TEXT_LIMIT] for key, value in STANZA.findall(stanza)}
        if fields.get("Status", "").endswith(" installed"):
            yield Package(
                name=fields.get("Package", ""),
                version=fields.get("Version", ""),
                architecture=fields.get("Architecture", ""),
            )


def _accounts(target: Target) -> Iterator[Account]:
    """root, and the users from 1000 on (Debian Policy 9.2.2)."""
    shadow = dict(
        line.split(":")[:2] for line in _read(target, "/etc/shadow").splitlines() if ":" in line
    )
    for line in _read(target, "/etc/passwd").splitlines():
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
    """Whose the program in the first sector of a disk is."""
    with device.open("rb") as disk:
        sector = disk.read(512)
    if b"GRUB" in sector[:BOOT_CODE_BYTES]:
        return "grub (BIOS)"
    for code in SYSLINUX_CODE.glob("*mbr*.bin"):
        if sector.startswith(code.read_bytes()):
            return "syslinux (BIOS)"
    return ""


def _loaders(target: Target) -> Iterator[str]:
    """The UEFI boot loaders in a file system, as the firmware would look for them."""
    names = {n.lower(): n for n in _names(target, "/EFI/BOOT")}
    if default := names.get("bootx64.efi"):
        program = _read_bytes(target, f"/EFI/BOOT/{default}")
        yield next((f"{n} (UEFI)" for sign, n in EFI_SIGNS if sign in program), "unknown (UEFI)")
    if any(name.lower().endswith(".efi") for name in _names(target, "/EFI/Linux")):
        yield "unified kernel image (UEFI)"

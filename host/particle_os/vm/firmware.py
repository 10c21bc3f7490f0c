"""Firmware of test machines: QEMU's own BIOS, and the UEFI that the host's descriptors name.

Descriptors are JSON files that come with firmware: docs/interop/firmware.json of QEMU describes
them, the order of their directories and how one file hides another.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import pydantic
from pydantic import Field

from particle_os.architecture import AMD64, Architecture, MachineFacts
from particle_os.errors import InfrastructureError, UsageError
from particle_os.system import host_packages
from particle_os.system.regular_file import read_regular
from particle_os.vm.argv import Uefi

Firmware = Literal["bios", "uefi", "uefi-secure"]
FIRMWARES: tuple[Firmware, ...] = ("bios", "uefi", "uefi-secure")
# Descriptors of the administrator hide those of the distribution.
SYSTEM = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
DESCRIPTOR_BYTES = 1 << 20
ROOT = Path("/")
SMM = "requires-smm"
SECURE = {"secure-boot", "enrolled-keys"}
UNLIKE = {*SECURE, SMM, "host-uefi-vars"}


class _FlashFile(pydantic.BaseModel):
    filename: Path
    format: Literal["raw"]


class _Flash(pydantic.BaseModel):
    device: Literal["flash"]
    mode: Literal["split"] = "split"
    executable: _FlashFile
    variables: _FlashFile = Field(alias="nvram-template")


class _Machines(pydantic.BaseModel):
    architecture: str
    machines: tuple[str, ...]

    def fits(self, vm: MachineFacts) -> bool:
        return self.architecture == vm.target and any(
            fnmatchcase(vm.descriptor_machine, pattern) for pattern in self.machines
        )


class _Descriptor(pydantic.BaseModel):
    """The parts of a descriptor that decide whether the test machines can use the firmware."""

    interfaces: frozenset[str] = Field(alias="interface-types")
    mapping: _Flash
    targets: tuple[_Machines, ...]
    features: frozenset[str]

    def fits(self, firmware: Firmware, vm: MachineFacts) -> bool:
        if "uefi" not in self.interfaces or not any(each.fits(vm) for each in self.targets):
            return False
        if firmware == "uefi-secure":
            # Where the flash memory can be kept from the system, it must be.
            return self.features >= (SECURE | {SMM} if vm.secure_flash else SECURE)
        return not self.features & UNLIKE


@dataclass(frozen=True)
class UefiFiles:
    """The program of a firmware, and the variables that each machine gets a copy of."""

    code: Path
    variables: Path


def find(firmware: Firmware, architecture: Architecture = AMD64) -> UefiFiles | None:
    """Returns the installed files of a UEFI firmware: the first descriptor that fits decides."""
    for path in _descriptors():
        found = _read(path)
        if found is not None and found.fits(firmware, architecture.vm):
            files = UefiFiles(found.mapping.executable.filename, found.mapping.variables.filename)
            if _installed(files):
                return files
    # Where Debian's package puts the files, for a host without descriptors.
    place = ROOT / architecture.vm.firmware_directory[1:]
    code, variables = (place / name for name in architecture.vm.firmware_files[firmware])
    files = UefiFiles(code, variables)
    return files if _installed(files) else None


def _installed(files: UefiFiles) -> bool:
    return files.code.is_file() and files.variables.is_file()


def _descriptors() -> list[Path]:
    """The descriptors in their order; a file hides those of its name in later directories."""
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    found: dict[str, Path] = {}
    for directory in (configuration / "qemu/firmware", *SYSTEM):
        for path in directory.glob("*.json"):
            found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]


def _read(path: Path) -> _Descriptor | None:
    """A descriptor; None for one that is masked (empty, or a link to /dev/null) or does not fit."""
    try:
        return _Descriptor.model_validate_json(read_regular(path, DESCRIPTOR_BYTES), strict=True)
    except (OSError, ValueError):
        return None


def check(firmware: Firmware, architecture: Architecture = AMD64) -> None:
    """Raises InfrastructureError when `firmware` is not installed, UsageError without any such."""
    if firmware not in architecture.image.firmwares:
        known = " and ".join(architecture.image.firmwares)
        raise UsageError(
            f"machines of {architecture.name} have no {firmware}", hint=f"They have {known}."
        )
    if firmware != "bios":
        required(firmware, architecture)


def required(firmware: Firmware, architecture: Architecture = AMD64) -> UefiFiles:
    """Returns the installed files of a UEFI firmware, or raises InfrastructureError."""
    if (files := find(firmware, architecture)) is not None:
        return files
    place = ROOT / architecture.vm.firmware_directory[1:]
    whose = "" if architecture is AMD64 else f" for {architecture.name}"
    raise InfrastructureError(
        f"the firmware {firmware}{whose} is not installed: no descriptor in {SYSTEM[-1]} names "
        f"files for it, and {place} does not have them",
        hint=f"Install the firmware: {host_packages.advice(requirement(architecture))}.",
    )


def requirement(architecture: Architecture) -> str:
    """The name of the firmware in the table of the host's packages."""
    return "uefi" if architecture is AMD64 else f"uefi-{architecture.name}"


def prepare(firmware: Firmware, directory: Path, architecture: Architecture = AMD64) -> Uefi | None:
    """Returns the firmware for the machine with the private `directory`; None stands for BIOS.

    Raises InfrastructureError when the firmware is not installed.
    """
    if firmware == "bios":
        return None
    files = required(firmware, architecture)
    variables = directory / "uefi-variables.fd"
    shutil.copyfile(files.variables, variables)
    return Uefi(files.code, variables, secure=firmware == "uefi-secure")

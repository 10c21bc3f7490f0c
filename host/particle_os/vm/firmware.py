"""Firmware of test machines: QEMU's own BIOS, and UEFI from Debian's package ovmf."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from particle_os.errors import InfrastructureError
from particle_os.vm.argv import Uefi

Firmware = Literal["bios", "uefi", "uefi-secure"]
FIRMWARES: tuple[Firmware, ...] = ("bios", "uefi", "uefi-secure")
DIRECTORY = Path("/usr/share/OVMF")
# The program and its variables (README.Debian of ovmf). The "ms" variables hold the Secure Boot
# keys of retail machines.
FILES: dict[Firmware, tuple[str, str]] = {
    "uefi": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
    "uefi-secure": ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"),
}


def missing(firmware: Firmware, place: Path = DIRECTORY) -> list[Path]:
    """Returns the missing files of `firmware`."""
    return [place / name for name in FILES.get(firmware, ()) if not (place / name).exists()]


def check(firmware: Firmware, place: Path = DIRECTORY) -> None:
    """Raises InfrastructureError when a file of `firmware` is missing."""
    if files := missing(firmware, place):
        raise InfrastructureError(
            f"the firmware {firmware} is not installed: {files[0]} does not exist",
            hint="Install the firmware: sudo apt install ovmf.",
        )


def prepare(firmware: Firmware, directory: Path, place: Path = DIRECTORY) -> Uefi | None:
    """Returns the firmware for the machine with the private `directory`; None stands for BIOS.

    Raises InfrastructureError when the firmware is not installed.
    """
    if firmware == "bios":
        return None
    check(firmware, place)
    code, template = (place / name for name in FILES[firmware])
    variables = directory / "uefi-variables.fd"
    shutil.copyfile(template, variables)
    return Uefi(code, variables, secure=firmware == "uefi-secure")

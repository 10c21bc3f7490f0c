"""Firmware of test machines: QEMU's own BIOS, and UEFI as Debian's package ovmf brings it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from particle_os.errors import InfrastructureError
from particle_os.vm.argv import Uefi

Firmware = Literal["bios", "uefi", "uefi-secure"]
FIRMWARES: tuple[Firmware, ...] = ("bios", "uefi", "uefi-secure")
DIRECTORY = Path("/usr/share/OVMF")
# README.Debian of ovmf: the program and its variables; those of "ms" hold the keys that Secure Boot
# has in machines that are sold.
FILES: dict[Firmware, tuple[str, str]] = {
    "uefi": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
    "uefi-secure": ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"),
}


def missing(firmware: Firmware, place: Path = DIRECTORY) -> list[Path]:
    """The files of this firmware that are not there."""
    return [place / name for name in FILES.get(firmware, ()) if not (place / name).exists()]


def check(firmware: Firmware, place: Path = DIRECTORY) -> None:
    """Raises InfrastructureError unless a machine can be given this firmware."""
    if files := missing(firmware, place):
        raise InfrastructureError(
            f"the firmware {firmware} is not installed: there is no {files[0]}",
            hint="Install it: sudo apt install ovmf.",
        )


def prepare(firmware: Firmware, directory: Path, place: Path = DIRECTORY) -> Uefi | None:
    """The firmware for one machine whose private directory this is; None stands for BIOS.

    Raises InfrastructureError when it is not installed.
    """
    if firmware == "bios":
        return None
    check(firmware, place)
    code, template = (place / name for name in FILES[firmware])
    variables = directory / "uefi-variables.fd"
    shutil.copyfile(template, variables)
    return Uefi(code, variables, secure=firmware == "uefi-secure")

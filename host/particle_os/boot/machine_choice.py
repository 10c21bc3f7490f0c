"""The machine for an image of unknown making, if the user names none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from particle_os.architecture import Architecture
from particle_os.architecture import usual as usual_architecture
from particle_os.boot import contents
from particle_os.system.workspace import workspace
from particle_os.vm import firmware
from particle_os.vm.argv import ImageFormat
from particle_os.vm.firmware import Firmware

ONLY_UEFI = "the disk has no boot code for BIOS, so the machine has UEFI (--firmware)"


def architecture_of(
    wanted: Architecture | None, image: Path, driver: ImageFormat, note: Callable[[str], None]
) -> Architecture:
    """The wanted architecture, or that of the disk, or else that of this host."""
    if wanted is not None:
        return wanted
    with workspace() as work:
        found = contents.architecture(image, driver, work.path)
    usual = usual_architecture()
    if found is None or found == usual:
        return usual
    note(f"the disk is for {found.name}, so the machine is one of {found.name} (--architecture)")
    return found


def checked(
    wanted: Firmware | None,
    image: Path,
    driver: ImageFormat,
    architecture: Architecture,
    note: Callable[[str], None],
) -> Firmware:
    """The wanted firmware, or the usual one of the image.

    Raises UsageError if the architecture does not have it, and InfrastructureError if this machine
    lacks its files.
    """
    chosen = wanted or usual(image, driver, architecture, note)
    firmware.check(chosen, architecture)
    return chosen


def all_of(
    wanted: Sequence[Firmware],
    image: Path,
    driver: ImageFormat,
    architecture: Architecture,
    note: Callable[[str], None],
) -> Sequence[Firmware]:
    """The wanted ones, or the usual one of the image."""
    return wanted or (usual(image, driver, architecture, note),)


def usual(
    image: Path, driver: ImageFormat, architecture: Architecture, note: Callable[[str], None]
) -> Firmware:
    """The first firmware of the architecture, or UEFI if only that can start the disk."""
    first = architecture.image.firmwares[0]
    if first != "bios":
        return first
    with workspace() as work:
        if not contents.needs_uefi(image, driver, work.path):
            return first
    note(ONLY_UEFI)
    return "uefi"

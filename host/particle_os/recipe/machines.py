"""Checks that an image can boot on machines of its architecture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from particle_agent.stages import RecipeStage
from particle_agent.stages.base import StageOptions
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.software.apt import Apt

from particle_os.architecture import ARCHITECTURES, Architecture
from particle_os.documents.document import Key
from particle_os.recipe.passes.reading import Reading

# What boots small boards of arm64: their own firmware reads these packages' files, and knows no
# UEFI.
BOARDS = (
    "raspi-firmware", "raspberrypi-*", "linux-image-rpi-*", "linux-image-*-rpi-*",
    "linux-image-raspi*", "u-boot-*", "flash-kernel", "arm-trusted-firmware*",
)  # fmt: skip
# Programs that make such files for other machines; they start on any machine.
TOOLS = ("u-boot-tools", "u-boot-qemu")
OF_BOARD = (
    "'{}' is for boards without UEFI: they start from files and sectors that their own firmware "
    "knows, and particle-os writes neither"
)
OF_BOARD_HINT = "build for machines with UEFI, or take a tool that knows the board"
# Packages that exist for one architecture under a name with it. Others, such as those of cross
# compilers, name the architecture that they make programs for.
NAMED = re.compile(
    r"(?:linux-(?:image|headers)-|grub-(?:efi|cloud)-|shim-helpers-|systemd-boot-efi-|fwupd-)"
    r"(?:.*-)?({})(?:-.*)?"
)
# Packages of boot loaders that start from BIOS only.
OF_BIOS = ("grub-pc", "grub-pc-bin", "extlinux", "syslinux", "isolinux", "lilo")


def check(reading: Reading) -> None:
    """Notes what cannot boot, or cannot be installed, on the architecture of the recipe."""
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    architecture = ARCHITECTURES[recipe.architecture]
    for index, stage in enumerate(recipe.stages):
        if stage.applies(architecture.name):
            for place, code, message, hint in _faults(stage, architecture):
                source.problem(source.mark(("stages", index, *place)), code, message, hint)


def _faults(
    stage: RecipeStage | StageOptions, architecture: Architecture
) -> Iterator[tuple[Key, str, str, str]]:
    if isinstance(stage, Qemu):
        for place, why, hint in stage.obstacles(architecture):
            yield place, "bad-value", f"{place[0]}: {why}", hint
    if isinstance(stage, Apt):
        for number, name in enumerate(stage.packages):
            for message, hint in _faults_of_package(name, architecture):
                yield ("packages", number), "wrong-architecture", message, hint


def _faults_of_package(name: str, architecture: Architecture) -> Iterator[tuple[str, str]]:
    plain = re.split("[:=/]", name)[0]
    has_bios = "bios" in architecture.image.firmwares
    of_board = plain not in TOOLS and any(fnmatchcase(plain, pattern) for pattern in BOARDS)
    if not has_bios and of_board:
        yield OF_BOARD.format(plain), OF_BOARD_HINT
    elif not has_bios and plain in OF_BIOS:
        yield (
            f"'{plain}' starts machines with a BIOS, and those of {architecture.name} have none",
            f"remove it; 'grub-efi-{architecture.name}-bin' is GRUB for UEFI",
        )
    elif ":" not in name and (other := _meant_for(plain)) not in (None, architecture.name):
        assert other is not None
        similar = plain.replace(other, architecture.name)
        # Only PCs have the package with GRUB for both firmwares.
        similar = similar.replace("grub-cloud-", "grub-efi-") if not has_bios else similar
        yield (
            f"'{plain}' is a package for {other}, and the image is for {architecture.name}",
            f"write '{similar}', or give the stage 'when: {{architecture: {other}}}'",
        )


def _meant_for(package: str) -> str | None:
    """The architecture that the name of a package says; None for other names."""
    names = "|".join(ARCHITECTURES)
    found = re.fullmatch(NAMED.pattern.format(names), package)
    return None if found is None else found[1]

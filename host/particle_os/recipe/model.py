"""What a recipe is: its data classes, and a recipe that was loaded with the files around it."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from particle_agent.contract.findings import ERRORS
from particle_agent.contract.options import AtLeastOne, Options, Text
from particle_agent.stages import RECIPE_STAGES, RecipeStage
from particle_agent.stages.output.qemu import BootFirmware, Qemu

from particle_os.documents.document import Mark
from particle_os.errors import Problem
from particle_os.recipe.attachments import Attachment
from particle_os.recipe.base_reference import BaseReference
from particle_os.recipe.checks.kinds import Check
from particle_os.recipe.values import ProxyChoice

RecipeName = Annotated[
    str,
    # It names files and, where the base has none, the host (RFC 1123).
    Text(
        "a name of a-z, 0-9 and '-', at most 63 characters",
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        63,
    ),
]
# Of each stage, the files of the host that it names.
Attachments = tuple[tuple[Attachment, ...], ...]
ErrorCode = Annotated[
    str, Text("an error of the verification such as 'fstab-device-missing'", "|".join(ERRORS))
]


@dataclass(frozen=True, kw_only=True)
class BootTest(Options):
    """How the finished image is booted and what must hold in it."""

    firmware: Annotated[tuple[BootFirmware, ...], AtLeastOne()] | None = None
    """The firmwares to boot under: bios, uefi, or uefi-secure (UEFI with Secure Boot); by default
    those that the boot loader starts from, but for uefi-secure."""
    checks: tuple[Check, ...] = ()
    """What must hold besides: systemd settled and no unit failed."""

    def __post_init__(self) -> None:
        if self.firmware is not None and len(set(self.firmware)) < len(self.firmware):
            raise ValueError("firmware: each is named once")


@dataclass(frozen=True, kw_only=True)
class Recipe(Options):
    """A bootable image: what it starts from and the stages that make it."""

    name: RecipeName
    """The name of the image; its files are called NAME.raw and so on."""
    description: str = ""
    """One line for people."""
    base_image: BaseReference = "mmdebstrap:trixie"
    """What the image starts from: mmdebstrap:SUITE (bootstrapped from the Debian mirror),
    tar:PATH (a root file system; plain, gzip, xz or zstd), docker://NAME[:TAG|@DIGEST] (a
    container image in a registry), oci:DIRECTORY[:REF], oci-archive:PATH[:REF] or
    docker-archive:PATH[:REF]; paths are relative to the recipe."""
    architecture: Literal["amd64"] = "amd64"
    """The Debian architecture of the image."""
    apt_proxy: ProxyChoice = "auto"
    """A proxy such as apt-cacher-ng for packages: its URL, none, or auto for the one that the
    environment names or that runs on this machine. Nothing of it stays in the image."""
    stages: Annotated[
        tuple[Annotated[RecipeStage, pydantic.Field(discriminator="type")], ...], AtLeastOne()
    ]
    """What is done, in order. The last stage is `qemu`."""
    accepted_errors: tuple[ErrorCode, ...] = ()
    """Errors that the verification of the disk may find without ending the build, by their codes,
    such as fstab-device-missing for a disk that only the machines will have."""
    boot_test: BootTest = BootTest()
    """How the image is verified."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, the file it came from, and where each of its stages begins.

    `recipe` holds the stages that apply only; `notes` say of the others why they do not, and what
    else is no error.
    `attachments` are the files of the host that each stage names, `files` those that the recipe
    itself was read from, with their SHA-256 digests.
    """

    recipe: Recipe
    path: Path
    places: tuple[Mark, ...]
    attachments: Attachments
    files: Mapping[Path, str]
    notes: tuple[Problem, ...] = ()

    @property
    def disk(self) -> Qemu:
        last = self.recipe.stages[-1]
        assert isinstance(last, Qemu)
        return last

    @property
    def included(self) -> dict[str, str]:
        """The SHA-256 digests of the included files, by their paths as seen from the recipe."""
        others = [path for path in self.files if path != self.path]
        return {os.path.relpath(p, self.path.parent): self.files[p] for p in others}

    @property
    def firmwares(self) -> tuple[BootFirmware, ...]:
        """The firmwares under which the image is booted."""
        return self.recipe.boot_test.firmware or self.disk.firmwares


def stage_name(kind: Any) -> str:
    """The word that stands for a stage class in recipes."""
    return str(kind.type)


@functools.cache
def stage_kinds() -> Mapping[str, type]:
    """The classes of stages by their words in recipes."""
    return {stage_name(kind): kind for kind in RECIPE_STAGES}

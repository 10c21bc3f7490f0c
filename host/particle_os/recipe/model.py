"""The data classes of recipes: the recipe itself, and a loaded recipe with its files."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import pydantic
from particle_agent.contract.findings import ERRORS
from particle_agent.contract.options import AtLeastOne, HostPath, Options, Text
from particle_agent.stages import RECIPE_STAGES, RecipeStage
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.software.apt import Apt

from particle_os.documents.document import Mark, source_sha256
from particle_os.errors import Problem
from particle_os.recipe.base_reference import BaseReference
from particle_os.recipe.boot_options import (
    USUAL_DEVICES,
    Devices,
    StaticAddress,
    Upgrade,
    static_address,
)
from particle_os.recipe.checks.kinds import Check, of_build
from particle_os.recipe.files.attachments import Attachment
from particle_os.recipe.values import (
    ARCHITECTURES,
    Architecture,
    BootFirmware,
    BuildArchitecture,
    ProxyChoice,
)

RecipeName = Annotated[
    str,
    # The name becomes a file name, and the host name (RFC 1123) unless the base sets one.
    Text(
        "a name of a-z, 0-9 and '-', at most 63 characters",
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        63,
    ),
]
# For each stage, the files of the host that the stage names.
Attachments = tuple[tuple[Attachment, ...], ...]
ErrorCode = Annotated[
    str, Text("an error of the verification such as 'fstab-device-missing'", "|".join(ERRORS))
]


@dataclass(frozen=True, kw_only=True)
class BootTest(Options):
    """The boot test of the finished image: the machines to boot on, and the checks."""

    firmware: Annotated[tuple[BootFirmware, ...], AtLeastOne()] | None = None
    """The firmwares to boot under: bios, uefi, or uefi-secure (UEFI with Secure Boot); by default
    every firmware that the boot loader supports, except uefi-secure."""
    checks: tuple[Check, ...] = ()
    """Checks in addition to the standard ones: systemd has settled, and no unit has failed."""
    devices: Devices = USUAL_DEVICES
    """The devices of the test machine; the image boots once with each combination."""
    network: StaticAddress | None = None
    """The static address of the image, so that the host reaches it; by default the first one of the
    recipe's stage `network`."""
    user_data: Annotated[str, Text("user data of cloud-init", r"(?s:.*)", 65536)] | None = None
    """User data for cloud-init, at most 64 KiB: the test machine has a data source (NoCloud) with
    it."""
    upgrade: Upgrade | None = None
    """The test of an update of OSTree: the parent's system boots, takes the new commit, and runs
    it; all checks must hold. Then the machine returns to the parent's version."""
    fallback: bool = False
    """Whether the image must leave an update that is bad: it gets one whose health check fails, and
    must run again after the counted boots."""
    goss: HostPath | None = None
    """A file of tests for goss, at most 64 KiB, relative to the recipe. The image has the program
    goss, which runs them."""

    def __post_init__(self) -> None:
        if self.firmware is not None and len(set(self.firmware)) < len(self.firmware):
            raise ValueError("firmware: each is named once")

    def checks_of_build(self, commit: str | None) -> tuple[Check, ...]:
        """The checks within a build that has made `commit`, or no commit."""
        return of_build(self.checks, commit)


@dataclass(frozen=True, kw_only=True)
class Recipe(Options):
    """A bootable image: its base image, and the stages that build it."""

    name: RecipeName
    """The name of the image. The image files are called NAME.raw, NAME.qcow2 and so on."""
    description: str = ""
    """One line for people."""
    base_image: BaseReference = "mmdebstrap:trixie"
    """The base image: mmdebstrap:SUITE (bootstrapped from the Debian mirror), tar:PATH (a root
    file system; plain, gzip, xz or zstd), docker://NAME[:TAG|@DIGEST] (a container image in a
    registry), oci:DIRECTORY[:REF], oci-archive:PATH[:REF], docker-archive:PATH[:REF], or
    ostree:REPOSITORY#REF (a commit of the stage `ostree`, after which only `qemu` may follow).
    Paths are relative to the recipe."""
    base_image_key: HostPath | None = None
    """A file with the public key that must have signed the commit of a base image `ostree:…`, such
    as the published NAME.ostree.gpg, armored or binary, relative to the recipe. Without it, no
    signature is checked."""
    architecture: BuildArchitecture = "amd64"
    """The Debian architecture of the image. An image of another architecture than this machine's is
    built and booted in emulated machines. `--architecture` replaces it."""
    apt_proxy: ProxyChoice = "auto"
    """The proxy for packages, such as apt-cacher-ng: its URL, none, or auto. With auto, particle-os
    uses the proxy that the environment names, or a proxy that runs on this machine. The image
    keeps no trace of the proxy."""
    stages: Annotated[
        tuple[Annotated[RecipeStage, pydantic.Field(discriminator="type")], ...], AtLeastOne()
    ]
    """The stages, in the order in which they run. The last stage is `qemu`, or `ostree` in a recipe
    that makes a repository alone."""
    accepted_errors: tuple[ErrorCode, ...] = ()
    """Codes of errors that the verification of the disk may find without failing the build, such
    as fstab-device-missing for a disk that only the target machines have."""
    boot_test: BootTest = BootTest()
    """The boot test of the image."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, the file that holds it, and the place of each stage.

    `recipe` has only the stages for its architecture. `notes` explain why other stages are left
    out, and hold everything else that is worth a remark but no error. `attachments` are the files
    of the host that each stage names. `files` maps each file that the recipe was read from to its
    SHA-256 digest. `goss` is the content of the file of goss tests. `base_image_key` is the public
    key of the base image's commit. `hidden` names the variables with parts of confidential values,
    and `confidential` has the stages, counted from 0, that such a variable is in.
    """

    recipe: Recipe
    path: Path
    places: tuple[Mark, ...]
    attachments: Attachments
    files: Mapping[Path, str]
    notes: tuple[Problem, ...] = ()
    goss: bytes | None = None
    base_image_key: bytes | None = None
    hidden: frozenset[str] = frozenset()
    confidential: frozenset[int] = frozenset()

    def is_unchanged(self) -> bool:
        """Whether the files still are those that the recipe was read from. Raises OSError."""
        return all(source_sha256(path) == digest for path, digest in self.files.items())

    @property
    def architecture(self) -> Architecture:
        """The architecture of the image."""
        return ARCHITECTURES[self.recipe.architecture]

    @property
    def disk(self) -> Qemu | None:
        """The stage of the disk; None for a recipe that publishes a repository alone."""
        last = self.recipe.stages[-1]
        return last if isinstance(last, Qemu) else None

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the images."""
        return self.disk.formats if self.disk is not None else ()

    @property
    def makes_commit(self) -> bool:
        return any(stage.type == "ostree" for stage in self.recipe.stages)

    @property
    def publishes(self) -> tuple[str, ...]:
        """The output disks whose content a build publishes in addition to images."""
        return tuple(chain.from_iterable(stage.publishes for stage in self.recipe.stages))

    @property
    def attached_bytes(self) -> int:
        """The size of all files that the stages name, and read in the memory of the VM."""
        on_disks = {stage.input_disk for stage in self.recipe.stages}
        found = (a for attachments in self.attachments for a in attachments)
        return sum(a.size for a in found if a.reference not in on_disks)

    @property
    def included(self) -> dict[str, str]:
        """The SHA-256 digests of the included files, by their paths relative to the recipe."""
        others = [path for path in self.files if path != self.path]
        return {os.path.relpath(p, self.path.parent): self.files[p] for p in others}

    @property
    def firmwares(self) -> tuple[BootFirmware, ...]:
        """The firmwares under which the image is booted."""
        if self.disk is None:
            return ()
        return self.recipe.boot_test.firmware or self.disk.firmwares_on(self.architecture)

    @property
    def address(self) -> StaticAddress | None:
        """The static address of the image in the boot test, if it has one."""
        return self.recipe.boot_test.network or static_address(self.recipe.stages)

    def without_network(self) -> LoadedRecipe:
        """The recipe with stages that reach no network. The host still fetches packages."""
        stages = tuple(
            replace(stage, network="packages" if isinstance(stage, Apt) else "none")
            if stage.asks_network
            else stage
            for stage in self.recipe.stages
        )
        return replace(self, recipe=replace(self.recipe, stages=stages))


def stage_name(kind: Any) -> str:
    """The name of a stage class in recipes."""
    return str(kind.type)


@functools.cache
def stage_kinds() -> Mapping[str, type]:
    """The stage classes by their names in recipes."""
    return {stage_name(kind): kind for kind in RECIPE_STAGES}

"""The plan of a build: the options of the user, and all decisions that precede the start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from particle_agent.stages import RecipeStage
from particle_agent.stages.base import StageOptions
from particle_agent.stages.output.export import Export, Publish
from particle_agent.stages.software.sources import Sources

from particle_os.base.model import Base
from particle_os.errors import UsageError
from particle_os.jobs import checkpoints
from particle_os.recipe.model import LoadedRecipe
from particle_os.sandbox import agent
from particle_os.sandbox.helper import Helper
from particle_os.sandbox.template import Template, memory_bytes
from particle_os.vm import accel

MAX_AGE_SECONDS = 86400.0
REFRESH_BASE = "base"
SCRATCH_BYTES = 32 << 30
PLAIN_NOTE = "--plain: without shortcuts, which takes longer"


@dataclass(frozen=True)
class BuildOptions:
    """The options of one build, from the command line; sizes in bytes."""

    # The directory that receives the images.
    output_directory: Path = Path()
    # Values for the recipe's variables.
    variables: Mapping[str, str] = field(default_factory=dict)
    # Whether the recipe may name files outside of its directory.
    allow_outside: bool = False
    # The environment variables that the recipe may take for secrets.
    allow_env: tuple[str, ...] = ()
    base: str | None = None
    accel: accel.Mode = "auto"
    memory: int | None = None
    cpus: int | None = None
    scratch: int = SCRATCH_BYTES
    boot_test: bool = True
    keep_on_failure: bool = False
    # Replaces the architecture of the recipe.
    architecture: str | None = None
    # None stands for the usual template of the architecture.
    template: str | None = None
    mirror: str | None = None
    # A `ProxyChoice`; None leaves the choice to the recipe.
    apt_proxy: str | None = None
    # Whether the build uses and keeps earlier results.
    cache: bool = True
    # The first stage (number, name or type) whose earlier results are not used, or REFRESH_BASE.
    refresh: str | None = None
    # The seconds for which the result of a stage that uses the network is reused.
    max_age: float = MAX_AGE_SECONDS
    # Seconds since 1970; no time in the image is later, and random values are derived from it
    # (https://reproducible-builds.org/specs/source-date-epoch/).
    source_date: int | None = None
    # With "none", no stage has a network; the host still fetches packages.
    network: Literal["none"] | None = None
    # Whether the build goes without the shortcuts of docs/shortcuts.md.
    plain: bool = False
    # Whether the memory of the helper VM is saved in the cache, for faster starts.
    save_memory: bool = True
    # Shared caches to read from, and the public keys that must have signed what they have.
    cache_from: tuple[str, ...] = ()
    cache_keys: tuple[Path, ...] = ()
    # The shared cache to write to, and the private key that signs.
    cache_to: str | None = None
    cache_sign: Path | None = None

    def __post_init__(self) -> None:
        if self.cache_from and not self.cache_keys:
            raise UsageError(
                "--cache-from needs the public key of those who write to the shared cache",
                hint="Name it with --cache-keys FILE.",
            )
        if self.cache_to is not None and self.cache_sign is None:
            raise UsageError(
                "--cache-to needs a private key, which signs what the shared cache gets",
                hint="Name it with --cache-sign FILE; docs/using.md says how to make one.",
            )

    @property
    def rebuilds_base(self) -> bool:
        """Whether the base of a suite is built even when the cache has it."""
        return self.refresh == REFRESH_BASE

    def refresh_from(self, stages: Sequence[StageOptions]) -> int:
        """The first stage, counted from 0, whose earlier results are not used.

        Raises UsageError when `refresh` names no stage.
        """
        if self.rebuilds_base or not self.cache:
            return 0
        if self.refresh is None:
            return len(stages)
        return stage_index(stages, self.refresh, "--refresh")


@dataclass(frozen=True)
class Plan:
    """All decisions about a build, made before anything starts."""

    loaded: LoadedRecipe
    options: BuildOptions
    template: Template
    base_reference: str
    # None when the base is a suite that must be bootstrapped first.
    base: Base | None
    # None when the cache does not have the helper yet.
    helper: Helper | None
    # The first stage, counted from 0, whose earlier results are not used.
    refresh_from: int
    # The values of the secrets, by the hashes that stand for them in the stages.
    secrets: Mapping[str, bytes] = field(repr=False)
    # Stages that particle-os adds after the stages of the recipe.
    more: tuple[Export | Publish, ...] = ()

    @property
    def name(self) -> str:
        return self.loaded.recipe.name

    @property
    def memory(self) -> int:
        """The memory of the helper VM in bytes."""
        return self.options.memory or memory_bytes(self.template)

    @property
    def apt_proxy(self) -> str:
        return self.options.apt_proxy or self.loaded.recipe.apt_proxy

    @property
    def stages(self) -> tuple[RecipeStage | Export | Publish, ...]:
        return (*self.loaded.recipe.stages, *self.more)

    @property
    def lacks_security(self) -> bool:
        """Whether `mirror` leaves the base a single suite, and no stage sets other sources."""
        own = any(isinstance(stage, Sources) for stage in self.stages)
        made_here = self.base_reference.startswith("mmdebstrap:")
        return self.options.mirror is not None and made_here and not own

    @property
    def boots(self) -> bool:
        """Whether the build boots what it makes."""
        return self.options.boot_test and self.loaded.disk is not None

    @property
    def input_disks(self) -> frozenset[str]:
        """The references to the files that stages read from a disk."""
        return frozenset(stage.input_disk for stage in self.stages if stage.input_disk)

    @property
    def private_from(self) -> int:
        """The first stage, counted from 0, whose result may depend on something confidential.

        This is a secret, or a variable with a part of a confidential value.
        """
        known = self.loaded.confidential
        found = (i for i, stage in enumerate(self.stages) if stage.secrets or i in known)
        return next(found, len(self.stages))

    def secrets_of(self, stage: StageOptions) -> dict[str, bytes]:
        """The secrets that a stage names."""
        return {str(s.file): self.secrets[str(s.file)] for s in stage.secrets}

    def keys(self, base: Base, helper: Helper) -> list[str]:
        """The checkpoint keys: of the unpacked base, and after each stage."""
        recipe = self.loaded.recipe
        root = [base.identity, recipe.architecture, self.options.scratch]
        root += [helper.identity(), agent.pack().sha256, self.options.source_date]
        root += [self.options.plain]
        return checkpoints.keys(root, recipe.name, self.stages)

    def reusable(self, keys: Sequence[str]) -> Sequence[str]:
        """The keys, among those of `keys`, of the checkpoints that the job may continue from."""
        if not self.options.cache:
            return ()
        # The last stage writes the output disk, so it always runs.
        usable = min(self.refresh_from, len(self.stages) - 1)
        return keys[: usable + 1]

    def build_key(self, base: Base, helper: Helper) -> str:
        """The key of the published images: a digest of everything that determines them."""
        recipe = self.loaded.recipe
        tests = (recipe.boot_test, self.loaded.goss)
        wanted = (self.loaded.formats, recipe.accepted_errors, *tests)
        text = repr((self.keys(base, helper)[-1], wanted))
        return hashlib.sha256(text.encode()).hexdigest()


def most_attached(memory: int) -> int:
    """The number of bytes of files that a helper VM with this memory can take."""
    return memory // 4


def check_attached(needed: int, memory: int) -> None:
    """Raises UsageError when the files that the stages name are too much for the VM's memory."""
    if needed > most_attached(memory):
        raise UsageError(
            f"the files that the recipe names have {needed} bytes; they may fill a quarter of the "
            f"helper VM's memory, {most_attached(memory)} bytes",
            hint=f"Give the VM more with --memory, about {4 * needed / (1 << 30) + 0.1:.1f}G.",
        )


def stage_index(stages: Sequence[StageOptions], wanted: str, option: str) -> int:
    """The index of the first stage whose number (from 1), name or type is `wanted`.

    Raises UsageError, which names `option`, when there is no such stage.
    """
    for index, stage in enumerate(stages):
        if wanted in (str(index + 1), stage.name, stage.type):
            return index
    known = ", ".join(f"{i + 1} ({stage.name or stage.type})" for i, stage in enumerate(stages))
    raise UsageError(f"{option}: the recipe has no stage '{wanted}'; it has {known}")

"""What a build will do, decided before anything starts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from particle_agent.stages import RecipeStage
from particle_agent.stages.base import StageOptions
from particle_agent.stages.output.export import Export
from particle_agent.stages.software.sources import Sources

from particle_os.base.model import Base
from particle_os.errors import UsageError
from particle_os.jobs import checkpoints
from particle_os.recipe.model import LoadedRecipe
from particle_os.sandbox import agent
from particle_os.sandbox.helper import Helper
from particle_os.sandbox.template import Template
from particle_os.vm import accel

MAX_AGE_SECONDS = 86400.0
REFRESH_BASE = "base"
SCRATCH_BYTES = 32 << 30
PLAIN_NOTE = "--plain: without shortcuts, which takes longer"


@dataclass(frozen=True)
class BuildOptions:
    """What the command line says about one build; sizes in bytes."""

    # Where the images go.
    output_directory: Path = Path()
    # Values for the recipe's variables.
    variables: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None
    accel: accel.Mode = "auto"
    memory: int | None = None
    cpus: int | None = None
    scratch: int = SCRATCH_BYTES
    boot_test: bool = True
    keep_on_failure: bool = False
    template: str = "debian-trixie"
    mirror: str | None = None
    # What the recipe says of it, unless something is said here (`ProxyChoice`).
    apt_proxy: str | None = None
    # Whether earlier work is used, from which stage on it is not (number, name or type), and the
    # seconds for which a stage that reads the network is believed.
    cache: bool = True
    refresh: str | None = None
    max_age: float = MAX_AGE_SECONDS
    # Seconds since 1970 that no time in the image exceeds; what is random then follows from it
    # (https://reproducible-builds.org/specs/source-date-epoch/).
    source_date: int | None = None
    # Whether the build goes without the shortcuts of docs/shortcuts.md.
    plain: bool = False

    @property
    def rebuilds_base(self) -> bool:
        """Whether the base of a suite is made even when the cache has one."""
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
    """What a build will do; made before anything starts."""

    loaded: LoadedRecipe
    options: BuildOptions
    template: Template
    base_reference: str
    # Known before the start, but for a suite that was not bootstrapped before.
    base: Base | None
    helper: Helper | None
    # The first stage, counted from 0, whose earlier results are not used.
    refresh_from: int
    # What particle-os itself does after the recipe's stages.
    more: tuple[Export, ...] = ()
    # By what names them in the stages.
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.loaded.recipe.name

    @property
    def apt_proxy(self) -> str:
        return self.options.apt_proxy or self.loaded.recipe.apt_proxy

    @property
    def stages(self) -> tuple[RecipeStage | Export, ...]:
        return (*self.loaded.recipe.stages, *self.more)

    @property
    def lacks_security(self) -> bool:
        """Whether the base has one suite of one mirror only, and the recipe says nothing of it."""
        own = any(isinstance(stage, Sources) for stage in self.stages)
        made_here = self.base_reference.startswith("mmdebstrap:")
        return self.options.mirror is not None and made_here and not own

    def secrets_of(self, first: int) -> dict[str, bytes]:
        """What the stages from `first` on need."""
        wanted = {str(s.file) for stage in self.stages[first:] for s in stage.secrets}
        return {name: self.secrets[name] for name in wanted}

    def keys(self, base: Base, helper: Helper) -> list[str]:
        """What names the scratch disk with the unpacked base, and that after each stage."""
        recipe = self.loaded.recipe
        root = [base.digest, recipe.architecture, self.options.scratch]
        root += [helper.identity(), agent.pack().sha256, self.options.source_date]
        root += [self.options.plain]
        return checkpoints.keys(root, recipe.name, self.stages)

    def build_key(self, base: Base, helper: Helper) -> str:
        """What names the published images: everything that they depend on."""
        recipe = self.loaded.recipe
        wanted = (self.loaded.disk.formats, recipe.accepted_errors, recipe.boot_test)
        text = repr((self.keys(base, helper)[-1], wanted))
        return hashlib.sha256(text.encode()).hexdigest()


def stage_index(stages: Sequence[StageOptions], wanted: str, option: str) -> int:
    """The first stage of this number (from 1), name or type, counted from 0. Raises UsageError."""
    for index, stage in enumerate(stages):
        if wanted in (str(index + 1), stage.name, stage.type):
            return index
    known = ", ".join(f"{i + 1} ({stage.name or stage.type})" for i, stage in enumerate(stages))
    raise UsageError(f"{option}: the recipe has no stage '{wanted}'; it has {known}")

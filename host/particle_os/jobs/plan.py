"""What a build will do, decided before anything starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from particle_agent.stages import RecipeStage
from particle_agent.stages.base import StageOptions
from particle_agent.stages.output.export import Export
from particle_agent.stages.software.sources import Sources

from particle_os.base.lookup import find_base
from particle_os.base.model import Base
from particle_os.errors import UsageError
from particle_os.jobs import checkpoints
from particle_os.recipe import loading, secrets
from particle_os.recipe.base_reference import check_base_reference
from particle_os.recipe.model import LoadedRecipe
from particle_os.sandbox import agent, helper
from particle_os.sandbox.helper import Helper
from particle_os.sandbox.template import Template, load_template, memory_bytes, with_mirror
from particle_os.system.workspace import cache_directory
from particle_os.vm import accel

MAX_AGE_SECONDS = 86400.0
REFRESH_BASE = "base"
SCRATCH_BYTES = 32 << 30


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

    @property
    def makes_base_anew(self) -> bool:
        """Whether the base of a suite is made even when the cache has one."""
        return self.refresh == REFRESH_BASE


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
        return checkpoints.keys(root, recipe.name, self.stages)

    def build_key(self, base: Base, helper: Helper) -> str:
        """What names the published images: everything that they depend on."""
        recipe = self.loaded.recipe
        wanted = (self.loaded.disk.formats, recipe.accepted_errors, recipe.boot_test)
        text = repr((self.keys(base, helper)[-1], wanted))
        return hashlib.sha256(text.encode()).hexdigest()


def make_plan(recipe_path: Path, options: BuildOptions, *, with_secrets: bool = True) -> Plan:
    """Validates the recipe and looks up what is there already; starts nothing.

    A plan that is only looked at needs no secrets; to it, what was made with them is not there.
    A registry is asked what the base's reference names. Raises InvalidDocument or UsageError with
    all that is wrong, InfrastructureError when a registry does not answer.
    """
    loaded = loading.load(recipe_path, options.variables, base=options.base)
    return _plan(loaded, options, with_secrets=with_secrets)


def make_stage_plan(
    kind: str, path: Path, options: BuildOptions, *, base: str, export: bool
) -> Plan:
    """The plan to run one stage, whose options are in the file `path`, on a base image.

    With `export`, the system is written to a tar archive then. Raises as `make_plan` does.
    """
    loaded = loading.load_stage(kind, path, options.variables, base=base)
    # It is to be seen at work, whatever is known of earlier times.
    plan = _plan(loaded, replace(options, base=base, refresh="1"))
    return replace(plan, more=(Export(),) if export else ())


def _plan(loaded: LoadedRecipe, options: BuildOptions, *, with_secrets: bool = True) -> Plan:
    loaded, secrets = _with_secrets(loaded) if with_secrets else (loaded, {})
    template = template_of(options)
    reference = loaded.recipe.base_image if options.base is None else options.base
    check_base_reference(reference)
    relative_to = Path() if options.base else loaded.path.parent
    found = find_base(
        reference,
        relative_to,
        loaded.recipe.architecture,
        cache_directory(),
        mirror=options.mirror,
        anew=options.makes_base_anew,
    )
    _check_attachments(loaded, options.memory or memory_bytes(template))
    return Plan(
        loaded=loaded,
        options=options,
        template=template,
        base_reference=reference,
        base=found,
        helper=helper.find(template, cache_directory()),
        refresh_from=_refresh_from(loaded.recipe.stages, options),
        secrets=secrets,
    )


def template_of(options: BuildOptions) -> Template:
    """What the helper VM is made of. Raises UsageError when there is no such template or mirror."""
    template = load_template(options.template)
    return template if options.mirror is None else with_mirror(template, options.mirror)


def _with_secrets(loaded: LoadedRecipe) -> tuple[LoadedRecipe, dict[str, bytes]]:
    """Only what runs a recipe needs its secrets; to validate it, nobody does."""
    stages = loaded.recipe.stages
    if not any(stage.secrets for stage in stages):
        return loaded, {}
    places = [place.path for place in loaded.places]
    stages, values = secrets.resolve(stages, places, os.environ, cache_directory())
    return replace(loaded, recipe=replace(loaded.recipe, stages=stages)), values


def _check_attachments(loaded: LoadedRecipe, memory: int) -> None:
    """Raises UsageError unless the files that the stages name fit into the VM's memory."""
    needed = sum(a.size for attachments in loaded.attachments for a in attachments)
    if needed > memory // 4:
        raise UsageError(
            f"the files that the recipe names have {needed} bytes; the helper VM takes a quarter "
            f"of its memory, {memory // 4} bytes",
            hint=f"Give it more with --memory, {4 * needed / (1 << 30) + 0.1:.1f}G or so.",
        )


def _refresh_from(stages: Sequence[StageOptions], options: BuildOptions) -> int:
    if not options.cache:
        return 0
    if options.refresh is None:
        return len(stages)
    if options.makes_base_anew:
        return 0
    return stage_index(stages, options.refresh, "--refresh")


def stage_index(stages: Sequence[StageOptions], wanted: str, option: str) -> int:
    """The first stage of this number (from 1), name or type, counted from 0. Raises UsageError."""
    for index, stage in enumerate(stages):
        if wanted in (str(index + 1), stage.name, stage.type):
            return index
    known = ", ".join(f"{i + 1} ({stage.name or stage.type})" for i, stage in enumerate(stages))
    raise UsageError(f"{option}: the recipe has no stage '{wanted}'; it has {known}")

"""Makes the plan of a build: validates the recipe, and looks up what the cache has."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from particle_agent.stages.output.export import Export

from particle_os.base.lookup import find_base
from particle_os.errors import UsageError
from particle_os.jobs.plan import BuildOptions, Plan
from particle_os.recipe import loading, secrets
from particle_os.recipe.base_reference import check_base_reference
from particle_os.recipe.model import LoadedRecipe
from particle_os.sandbox import helper
from particle_os.sandbox.template import Template, load_template, memory_bytes, with_mirror
from particle_os.system.workspace import cache_directory


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
        anew=options.rebuilds_base,
        plain=options.plain,
    )
    _check_attachments(loaded, options.memory or memory_bytes(template))
    return Plan(
        loaded=loaded,
        options=options,
        template=template,
        base_reference=reference,
        base=found,
        helper=helper.find(template, cache_directory()),
        refresh_from=options.refresh_from(loaded.recipe.stages),
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

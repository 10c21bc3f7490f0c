"""Makes the plan of a build and its preview: validates the recipe, and searches the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from particle_agent.stages.output.export import Export, Publish

from particle_os.base.lookup import find_base
from particle_os.jobs.execution import earlier_work
from particle_os.jobs.plan import PLAIN_NOTE, BuildOptions, Plan, check_attached
from particle_os.recipe import loading
from particle_os.recipe.base_reference import check_base_reference
from particle_os.recipe.model import LoadedRecipe
from particle_os.recipe.parameters import secrets
from particle_os.report.preview import Preview, Step
from particle_os.sandbox import helper
from particle_os.sandbox.template import Template, any_template, template_for, with_mirror
from particle_os.system.workspace import cache_directory


def images(recipes: Sequence[Path], options: BuildOptions) -> list[tuple[Path, BuildOptions]]:
    """Each image that the recipes make: the file, and the options with the variables of the image.

    Raises InvalidDocument with the problems of all documents that are no YAML, and UsageError when
    no image of a recipe has the given values. `make_plan` finds all other problems.
    """
    found = loading.images_of(recipes, options.variables, options.architecture)
    return [(recipe, replace(options, variables=values)) for recipe, values in found]


def make_plan(recipe_path: Path, options: BuildOptions, *, with_secrets: bool = True) -> Plan:
    """Validates the recipe and returns the plan of its build; starts nothing.

    Use `with_secrets=False` for a plan that is only shown: it needs no secrets, and earlier work
    that depends on secrets looks missing. The base's reference may make it ask a registry. Raises
    InvalidDocument or UsageError with all problems, InfrastructureError when the registry does not
    answer.
    """
    loaded = loading.load(
        recipe_path,
        options.variables,
        base=options.base,
        allow_outside=options.allow_outside,
        architecture=options.architecture,
    )
    plan = _plan(loaded, options, with_secrets=with_secrets)
    return plan if loaded.disk is not None else replace(plan, more=(Publish(),))


def make_stage_plan(
    kind: str, path: Path, options: BuildOptions, *, base: str, export: bool
) -> Plan:
    """The plan to run a stage of type `kind`, whose options are in the file `path`, on a base.

    With `export`, the resulting system is written to a tar archive. Raises as `make_plan` does.
    """
    loaded = loading.load_stage(
        kind,
        path,
        options.variables,
        base=base,
        allow_outside=options.allow_outside,
        architecture=options.architecture,
    )
    # The user wants to see the stage run, so a checkpoint must not replace the run.
    plan = _plan(loaded, replace(options, base=base, refresh="1"))
    return replace(plan, more=(Export(),) if export else ())


def _plan(loaded: LoadedRecipe, options: BuildOptions, *, with_secrets: bool = True) -> Plan:
    if options.network == "none":
        loaded = loaded.without_network()
    loaded, secrets = _with_secrets(loaded, options) if with_secrets else (loaded, {})
    template = template_of(options, loaded.recipe.architecture)
    reference = loaded.recipe.base_image if options.base is None else options.base
    check_base_reference(reference)
    relative_to = Path() if options.base else loaded.path.parent
    found = find_base(
        reference,
        relative_to,
        loaded.recipe.architecture,
        cache_directory(),
        mirror=options.mirror,
        rebuild=options.rebuilds_base,
        plain=options.plain,
        key=loaded.base_image_key,
    )
    plan = Plan(
        loaded=loaded,
        options=options,
        template=template,
        base_reference=reference,
        base=found,
        helper=helper.find(template, cache_directory()),
        refresh_from=options.refresh_from(loaded.recipe.stages),
        secrets=secrets,
    )
    check_attached(loaded.attached_bytes, plan.memory)
    return plan


def template_of(options: BuildOptions, architecture: str = "amd64") -> Template:
    """The template of a helper VM of an architecture.

    Raises UsageError for an unknown template, one of another architecture, or a bad mirror.
    """
    return _with_mirror(template_for(options.template, architecture), options)


def reading_template(options: BuildOptions) -> Template:
    """The template of a helper VM that only reads, of any architecture. Raises as `template_of`."""
    return _with_mirror(any_template(options.template), options)


def _with_mirror(template: Template, options: BuildOptions) -> Template:
    return template if options.mirror is None else with_mirror(template, options.mirror)


def _with_secrets(
    loaded: LoadedRecipe, options: BuildOptions
) -> tuple[LoadedRecipe, dict[str, bytes]]:
    """The recipe with a hash in place of each secret, and the values by hash."""
    stages = loaded.recipe.stages
    if not any(stage.secrets for stage in stages):
        return loaded, {}
    directory = None if options.allow_outside else loaded.path.parent
    sources = secrets.SecretSources(os.environ, options.allow_env, directory)
    stages, values = secrets.resolve(stages, loaded.places, sources, cache_directory())
    return replace(loaded, recipe=replace(loaded.recipe, stages=stages)), values


def preview(plan: Plan) -> Preview:
    """The steps of the build that `plan` describes; starts nothing, and makes nothing.

    It finds earlier work by the keys of the build. Unlike the build, it does not look for damage in
    the cache.
    """
    digest = plan.base.digest if plan.base else None
    plain_note = PLAIN_NOTE if plan.options.plain else None
    return Preview(plan.name, digest, tuple(_steps(plan)), tuple(plan.loaded.notes), plain_note)


def _steps(plan: Plan) -> Iterator[Step]:
    found = earlier_work.of(plan)
    yield Step("helper VM", plan.template.name, plan.helper is not None)
    yield Step("base image", plan.base_reference, found.base)
    for url, is_here in found.downloads.items():
        yield Step("download", url, is_here)
    for number, stage in enumerate(plan.loaded.recipe.stages):
        yield Step(f"stage {number + 1}", stage.label, found.has_stage(number))
    if plan.loaded.formats:
        yield Step("images", ", ".join(plan.loaded.formats), found.images)
    if plan.loaded.publishes:
        yield Step("published", ", ".join(plan.loaded.publishes), found.images)
    if plan.boots:
        firmwares, devices = plan.loaded.firmwares, plan.loaded.recipe.boot_test.devices
        yield Step("boot test", ", ".join([*firmwares, *devices.unusual]), found.images)

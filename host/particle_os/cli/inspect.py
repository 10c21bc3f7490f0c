"""The command `inspect`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from particle_os.base.lookup import existing_base
from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, command, with_output
from particle_os.errors import UsageError
from particle_os.jobs.inspect import Inspector, open_inspector
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan, preview, reading_template
from particle_os.recipe import loading
from particle_os.report.inspection import InspectionReport
from particle_os.sandbox.acceleration import find_acceleration
from particle_os.system.workspace import cache_directory, workspace
from particle_os.vm.image_format import image_format

REFERENCE = re.compile(r"[a-z-]+:.+")


@command("inspect")
@click.argument("what", metavar="IMAGE|REF|RECIPE")
@option.FORMAT
@click.option("--verify", is_flag=True, help="Also look for errors in a disk image.")
@click.option("--resolved", is_flag=True, help="Print a recipe with all its parts put in.")
@option.SAME_MIRROR
@option.SOURCE_DATE
@option.PLAIN
@option.HIDDEN_TEMPLATE
@option.VARIABLES
@option.ARCHITECTURE
@option.ALLOW_OUTSIDE
@option.ACCEL
@with_output
@option.build_options
def inspect_command(
    output: OutputStyle,
    what: str,
    given_format: str | None,
    verify: bool,
    resolved: bool,
    options: BuildOptions,
) -> None:
    """Show the contents of a disk image, a base image or a recipe.

    A base image is a reference such as tar:PATH, docker://NAME or ostree:PATH#REF. A recipe is a
    FILE.yml or the name of a shipped one. Images are read inside a helper VM and never changed.
    """
    recipe = option.recipe_named(what)
    is_base = bool(REFERENCE.fullmatch(what))
    if (verify or given_format) and (recipe or is_base):
        flag = "--verify" if verify else "--format"
        raise UsageError(f"{flag} is for disk images, and {what} is none", hint=_as_file(what))
    if options.architecture is not None and recipe is None and not is_base:
        raise UsageError(f"--architecture is not for disk images, and {what} is one")
    if resolved and recipe is None:
        hint = "Name a recipe: a file that ends with .yml, or one of 'particle-os list recipes'."
        raise UsageError(f"--resolved is for recipes, and {what} is none", hint=hint)
    if options.variables and recipe is None:
        raise UsageError(f"--set is for recipes, and {what} is none", hint=_as_file(what))
    if recipe is not None:
        _show_recipe(recipe, options, output, resolved=resolved)
        return
    if is_base:
        report = _inspect_base(what, options, output)
    else:
        report = _inspect_image(Path(what), given_format, options, output, verify=verify)
    output.show(report.data(), report.lines(packages=output.verbose))
    if error := report.error():
        raise error


def _show_recipe(path: Path, options: BuildOptions, output: OutputStyle, *, resolved: bool) -> None:
    """Shows the steps of a build of the recipe, or the recipe with all its parts put in."""
    if resolved:
        data = loading.resolved(
            path,
            options.variables,
            base=options.base,
            allow_outside=options.allow_outside,
            architecture=options.architecture,
        )
        output.show_yaml(data)
        return
    # 'build' looks for earlier images in its usual directory.
    usual = replace(options, output_directory=option.OUTPUT_DIRECTORY)
    steps = preview(make_plan(path, usual, with_secrets=False))
    output.show(steps.data(), steps.lines())


def _as_file(what: str) -> str | None:
    """The advice for a file whose name reads like a base image; None without such a file."""
    is_meant = REFERENCE.fullmatch(what) and Path(what).exists()
    return f"For the file of this name, write ./{what}." if is_meant else None


def _inspect_base(reference: str, options: BuildOptions, output: OutputStyle) -> InspectionReport:
    try:
        wanted = options.architecture
        base = existing_base(reference, wanted, cache_directory(), mirror=options.mirror)
    except UsageError as error:
        error.hint = _as_file(reference) or error.hint
        raise
    with _inspector(options, output) as inspector:
        return InspectionReport(inspector.base(base), base.description())


def _inspect_image(
    path: Path,
    given_format: str | None,
    options: BuildOptions,
    output: OutputStyle,
    *,
    verify: bool,
) -> InspectionReport:
    if not path.is_file():
        raise UsageError(
            f"there is no image {path}",
            hint="Name a disk image, a base image such as tar:PATH, a recipe FILE.yml, or one of "
            "'particle-os list recipes'.",
        )
    driver = image_format(path, given_format)
    with _inspector(options, output) as inspector:
        if not verify:
            return InspectionReport(inspector.image(path, driver))
        found, verification = inspector.verify(path, driver)
        return InspectionReport(found, verification=verification)


@contextmanager
def _inspector(options: BuildOptions, output: OutputStyle) -> Iterator[Inspector]:
    # A machine of any architecture reads any disk and any archive: nothing in them runs.
    template = reading_template(options)
    with output.progress_shown() as progress, workspace() as work:
        acceleration = find_acceleration(
            options.accel,
            options.template,
            work,
            template.record,
            log=progress.line,
            note=progress.note,
        )
        yield open_inspector(template, acceleration, work, progress)

"""The command `build`."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import click

from particle_os.base.model import TarBase
from particle_os.boot.evidence import CONSOLE
from particle_os.cli import build_options as option
from particle_os.cli.build_options import build_options
from particle_os.cli.common import (
    ACCEL,
    APT_PROXY,
    RECIPE,
    VARIABLES,
    OutputStyle,
    common,
    memory_option,
)
from particle_os.cli.outcome import not_booted
from particle_os.cli.verdicts import (
    JUNIT,
    check_writable,
    hand_over,
    hand_over_failure,
    make_writable,
)
from particle_os.errors import ParticleError, printable
from particle_os.jobs.delivery import ENDINGS, already_there
from particle_os.jobs.plan import PLAIN_NOTE, BuildOptions, Plan
from particle_os.jobs.planning import make_plan
from particle_os.report.progress import Progress
from particle_os.report.results import Result
from particle_os.report.table import print_result
from particle_os.sandbox.verification import defective


@click.command("build")
@RECIPE
@VARIABLES
@option.OUTPUT
@option.BASE
@ACCEL
@memory_option("2G")
@option.CPUS
@option.SCRATCH_SIZE
@option.MIRROR
@APT_PROXY
@option.TEMPLATE
@option.NO_CACHE
@option.REFRESH
@option.MAX_AGE
@option.SOURCE_DATE
@option.PLAIN
@option.NO_BOOT_TEST
@JUNIT
@option.KEEP_ON_FAILURE
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@common
@build_options
def build_command(
    output: OutputStyle,
    recipe_path: Path,
    options: BuildOptions,
    junit_file: Path | None,
    dry_run: bool,
) -> None:
    """Build the image of RECIPE, boot it, and publish it in the output directory."""
    plan = make_plan(recipe_path, options)
    if dry_run:
        show_plan(plan, output)
        return
    make_writable(options.output_directory)
    check_writable(junit_file, _files(plan))
    try:
        with output.progress_shown() as progress:
            result = _built(plan, progress)
    except ParticleError as error:
        hand_over_failure(plan.name, error, junit_file)
        raise
    hand_over(result.recipe, result.boot, junit_file)
    _show(result, options.output_directory, output)


def _built(plan: Plan, progress: Progress) -> Result:
    """The result of the build, or of the earlier one that it would repeat."""
    if result := already_there(plan):
        progress.note("nothing has changed: the images are there and whole")
        return result
    # What a build needs takes longer to load than to find that nothing has changed.
    from particle_os.jobs import build

    return build.build(plan, progress)


def _show(result: Result, directory: Path, output: OutputStyle) -> None:
    """Shows the result; raises Defective or NotBooted when the image is not good."""
    good = result.status not in ("not-booted", "defective")
    place = directory if good else directory / f"{result.recipe}.failed"
    names = [a.path for a in result.artifacts]
    names += [f"{result.recipe}.{ending}" for ending in ENDINGS]
    if output.as_json:
        click.echo(result.model_dump_json(indent=2))
    elif not output.quiet:
        print_result(result, output.data(), [str(place / name) for name in names])
    if result.verification is not None and result.verification.errors:
        raise defective(result.verification, place / f"{result.recipe}.log")
    if not good:
        verdict = next(v for v in result.boot if not v.passed)
        console = Path(f"{result.recipe}.evidence") / verdict.firmware / CONSOLE
        raise not_booted(verdict, place / console)


def _files(plan: Plan) -> list[Path]:
    """What a build reads, and what it leaves."""
    attached = chain.from_iterable(plan.loaded.attachments)
    read = [*plan.loaded.files, *(attachment.path for attachment in attached)]
    if isinstance(plan.base, TarBase):
        read.append(plan.base.tarball)
    endings = (*plan.loaded.disk.formats, "raw.zst", *ENDINGS)
    return [*read, *(plan.options.output_directory / f"{plan.name}.{ending}" for ending in endings)]


def show_plan(plan: Plan, output: OutputStyle) -> None:
    """Prints what a build would do, and what of it is there already."""
    base_is_here = plan.base is not None and plan.base.is_here()
    steps = [
        {"step": "helper VM", "detail": plan.template.name, "ready": plan.helper is not None},
        {"step": "base image", "detail": plan.base_reference, "ready": base_is_here},
    ]
    for number, stage in enumerate(plan.loaded.recipe.stages, start=1):
        steps.append({"step": f"stage {number}", "detail": stage.label, "ready": False})
    disk = plan.loaded.disk
    steps.append({"step": "images", "detail": ", ".join(disk.formats), "ready": False})
    if plan.options.boot_test:
        firmware = ", ".join(plan.loaded.firmwares)
        steps.append({"step": "boot test", "detail": firmware, "ready": False})
    if output.as_json:
        told = {
            "recipe": plan.name,
            "base_digest": plan.base.digest if plan.base else None,
            "plain": plan.options.plain,
            "steps": steps,
            "notes": [asdict(note) for note in plan.loaded.notes],
        }
        click.echo(json.dumps(told, indent=2))
        return
    for step in steps:
        ready = " (ready)" if step["ready"] else ""
        click.echo(f"{step['step']:<12} {printable(str(step['detail']))}{ready}")
    for note in (*plan.loaded.notes, *([PLAIN_NOTE] if plan.options.plain else [])):
        click.echo(f"note: {note}")

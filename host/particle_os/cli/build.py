"""The commands that run a recipe: `build` and `shell`."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import click

from particle_os.base.model import TarBase
from particle_os.boot.evidence import CONSOLE
from particle_os.cli.common import (
    ACCEL,
    APT_PROXY,
    RECIPE,
    VARIABLES,
    OutputStyle,
    PathType,
    common,
    find_acceleration,
    memory_option,
    size,
)
from particle_os.cli.outcome import not_booted
from particle_os.cli.verdicts import (
    JUNIT,
    check_writable,
    hand_over,
    hand_over_failure,
    make_writable,
)
from particle_os.errors import ParticleError, UsageError, printable
from particle_os.jobs.delivery import ENDINGS, already_there
from particle_os.jobs.plan import MAX_AGE_SECONDS, BuildOptions, Plan, make_plan
from particle_os.report.table import print_result
from particle_os.sandbox.verification import defective
from particle_os.system.workspace import workspace
from particle_os.vm import accel

# Checkpoints differ in these: whoever enters one says the same.
SCRATCH_SIZE = click.option(
    "--scratch-size",
    callback=size,
    metavar="SIZE",
    default="32G",
    show_default=True,
    help="The most that the system under construction may take.",
)
SOURCE_DATE = click.option(
    "--source-date",
    type=click.IntRange(0, 2**32 - 1),
    metavar="SECONDS",
    envvar="SOURCE_DATE_EPOCH",
    show_envvar=True,
    help="Make the image reproducible; no time in it is later (seconds since 1970).",
)


@click.command("build")
@RECIPE
@VARIABLES
@click.option("--output", "output_directory", type=PathType(file_okay=False),
              default=Path("out"), show_default=True, help="Where the images go.")  # fmt: skip
@click.option("--base", metavar="REF", help="Start from this base image instead of the recipe's.")
@ACCEL
@memory_option("2G")
@click.option("--cpus", type=click.IntRange(1, 64), help="The helper VM's processors.")
@SCRATCH_SIZE
@click.option("--mirror", metavar="URL", envvar="PARTICLE_OS_MIRROR", show_envvar=True,
              help="The Debian mirror for the helper VM and for mmdebstrap: bases, which then have "
              "no other source: no updates and no security suites.")  # fmt: skip
@APT_PROXY
@click.option("--template", default="debian-trixie", show_default=True, help="The helper VM.")
@click.option("--no-cache", is_flag=True, help="Do everything anew, and keep nothing of it.")
@click.option("--refresh", metavar="STAGE",
              help="Do this stage (number, name or type; base) and all after it anew.")  # fmt: skip
@click.option("--max-age", type=click.IntRange(0), default=int(MAX_AGE_SECONDS // 3600),
              show_default=True, metavar="HOURS",
              help="How long a stage that reads the network need not be done anew.")  # fmt: skip
@SOURCE_DATE
@click.option("--no-boot-test", is_flag=True, help="Publish without having booted the image.")
@JUNIT
@click.option("--keep-on-failure", is_flag=True, help="Keep the disks of a failed build.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@common
def build_command(
    output: OutputStyle, recipe_path: Path, variables: dict[str, str], output_directory: Path,
    base: str | None, accel: accel.Wish,
    memory: int | None, cpus: int | None, scratch_size: int, mirror: str | None, template: str,
    no_cache: bool, refresh: str | None, max_age: int, source_date: int | None, no_boot_test: bool,
    junit_file: Path | None, keep_on_failure: bool, dry_run: bool, apt_proxy: str | None,
) -> int:  # fmt: skip
    """Build the image of RECIPE, boot it, and publish it in the output directory."""
    options = BuildOptions(
        output=output_directory,
        variables=variables,
        base=base,
        accel=accel,
        memory=memory,
        cpus=cpus,
        scratch=scratch_size,
        boot_test=not no_boot_test,
        keep_on_failure=keep_on_failure,
        template=template,
        mirror=mirror,
        apt_proxy=apt_proxy,
        cache=not no_cache,
        refresh=refresh,
        max_age=max_age * 3600,
        source_date=source_date,
    )
    plan = make_plan(recipe_path, options)
    if dry_run:
        show_plan(plan, output)
        return 0
    make_writable(output_directory)
    check_writable(junit_file, _files(plan))
    progress = output.progress_sinks()
    try:
        if result := already_there(plan):
            progress.note("nothing has changed: the images are there and whole")
        else:
            # What a build needs takes longer to load than to find that nothing has changed.
            from particle_os.jobs import build

            result = build.build(plan, progress)
    except ParticleError as error:
        hand_over_failure(plan.name, error, junit_file)
        raise
    finally:
        progress.close()
    hand_over(result.recipe, result.boot, junit_file)
    good = result.status not in ("not-booted", "defective")
    place = output_directory if good else output_directory / f"{result.recipe}.failed"
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
    return 0


def _files(plan: Plan) -> list[Path]:
    """What a build reads, and what it leaves."""
    attached = chain.from_iterable(plan.loaded.attachments)
    read = [*plan.loaded.files, *(attachment.path for attachment in attached)]
    if isinstance(plan.base, TarBase):
        read.append(plan.base.tarball)
    endings = (*plan.loaded.disk.formats, "raw.zst", *ENDINGS)
    return [*read, *(plan.options.output / f"{plan.name}.{ending}" for ending in endings)]


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
            "steps": steps,
            "notes": [asdict(note) for note in plan.loaded.notes],
        }
        click.echo(json.dumps(told, indent=2))
        return
    for step in steps:
        ready = " (ready)" if step["ready"] else ""
        click.echo(f"{step['step']:<12} {printable(str(step['detail']))}{ready}")
    for note in plan.loaded.notes:
        click.echo(f"note: {note}")


@click.command("shell")
@RECIPE
@VARIABLES
@click.option("--at", metavar="STAGE", help="The state after this stage (number, name or type).")
@click.option("--failed", is_flag=True, help="The state in which a stage of the last build failed.")
@click.option("--base", metavar="REF", help="As it was given to build.")
@click.option("--mirror", metavar="URL", envvar="PARTICLE_OS_MIRROR", help="As given to build.")
@SCRATCH_SIZE
@SOURCE_DATE
@APT_PROXY
@ACCEL
@memory_option("2G")
@click.option("--cpus", type=click.IntRange(1, 64), help="The helper VM's processors.")
@click.option("--template", default="debian-trixie", hidden=True)
@common
def shell_command(
    output: OutputStyle, recipe_path: Path, variables: dict[str, str], at: str | None, failed: bool,
    base: str | None, mirror: str | None, accel: accel.Wish, memory: int | None,
    cpus: int | None, template: str, apt_proxy: str | None, scratch_size: int,
    source_date: int | None,
) -> int:  # fmt: skip
    """A root shell in the system of RECIPE as a stage left it, in a VM that is thrown away."""
    if at is not None and failed:
        raise UsageError("--at and --failed exclude each other")
    options = BuildOptions(
        output=Path(), variables=variables, base=base, mirror=mirror, apt_proxy=apt_proxy,
        accel=accel, memory=memory, scratch=scratch_size, source_date=source_date,
        cpus=cpus, template=template,
    )  # fmt: skip
    plan = make_plan(recipe_path, options)
    progress = output.progress_sinks()
    try:
        with workspace() as work:
            acceleration = find_acceleration(accel, template, work, progress)
        from particle_os.jobs import shell

        return shell.enter(plan, acceleration, progress, at=at, failed=failed)
    finally:
        progress.close()

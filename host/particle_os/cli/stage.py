"""The commands of `stage`."""

from __future__ import annotations

from pathlib import Path

import click

from particle_os.cli.common import (
    ACCEL,
    APT_PROXY,
    VARIABLES,
    OutputStyle,
    PathType,
    common,
    memory_option,
)
from particle_os.errors import UsageError
from particle_os.jobs import single_stage
from particle_os.jobs.plan import BuildOptions, make_stage_plan
from particle_os.report.table import print_single
from particle_os.vm import accel


@click.group("stage")
def stage_group() -> None:
    """Try a stage without a recipe around it."""


@stage_group.command("run")
@click.argument("kind", metavar="TYPE")
@click.option("--options", "options_path", type=PathType(), metavar="FILE", required=True,
              help="A YAML file with what stands beside 'type' in a recipe.")  # fmt: skip
@click.option("--base", metavar="REF", required=True,
              help="The base image that it runs on: mmdebstrap:trixie, tar:PATH.")  # fmt: skip
@click.option("--output", "output_path", type=PathType(), metavar="FILE",
              help="Write the root file system that results to this tar archive.")  # fmt: skip
@VARIABLES
@ACCEL
@memory_option("2G")
@click.option("--cpus", type=click.IntRange(1, 64), help="The helper VM's processors.")
@click.option("--mirror", metavar="URL", envvar="PARTICLE_OS_MIRROR", help="As given to build.")
@APT_PROXY
@click.option("--template", default="debian-trixie", hidden=True)
@common
def stage_run_command(
    output: OutputStyle, kind: str, options_path: Path, base: str, output_path: Path | None,
    variables: dict[str, str], accel: accel.Wish, memory: int | None, cpus: int | None,
    mirror: str | None, apt_proxy: str | None, template: str,
) -> None:  # fmt: skip
    """Run the stage TYPE alone on a base image, in a helper VM, and tell what happened."""
    if output_path is not None and output_path.suffix != ".tar":
        raise UsageError(
            f"--output: expected a name that ends with .tar, found '{output_path}'",
            hint="The archive is not compressed; zstd or gzip does that.",
        )
    options = BuildOptions(
        output=Path(), variables=variables, mirror=mirror, apt_proxy=apt_proxy,
        accel=accel, memory=memory, cpus=cpus, template=template,
    )  # fmt: skip
    plan = make_stage_plan(kind, options_path, options, base=base, export=output_path is not None)
    progress = output.progress_sinks()
    try:
        result = single_stage.run_stage(plan, output_path, progress)
    finally:
        progress.close()
    if output.as_json:
        click.echo(result.model_dump_json(indent=2))
    elif not output.quiet:
        print_single(result, output.data())

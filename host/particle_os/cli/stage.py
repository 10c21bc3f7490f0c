"""The commands of `stage`."""

from __future__ import annotations

from pathlib import Path

import click

from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, say_json, with_output
from particle_os.cli.usage import completion
from particle_os.cli.usage.commands import CommandGroup
from particle_os.errors import UsageError
from particle_os.jobs import single_stage
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_stage_plan
from particle_os.report.table import print_single


@click.group("stage", cls=CommandGroup)
def stage_group() -> None:
    """Try a stage without a recipe."""


@stage_group.command("run")
@click.argument("kind", metavar="TYPE", shell_complete=completion.stages)
@click.option("--options", "options_path", type=option.PathType(), metavar="FILE", required=True,
              help="A YAML file with the options of the stage, without 'type'.")  # fmt: skip
@click.option("--base", "base_reference", metavar="REF", required=True,
              help="The base image, such as mmdebstrap:trixie or tar:PATH.")  # fmt: skip
@click.option("-o", "--output", "output_path", type=option.PathType(), metavar="FILE",
              help="Write the resulting root file system to this tar archive.")  # fmt: skip
@option.ARCHITECTURE
@option.VARIABLES
@option.ALLOW_OUTSIDE
@option.ALLOW_ENV
@option.ACCEL
@option.memory_option("2G")
@option.CPUS
@option.SAME_MIRROR
@option.APT_PROXY
@option.PLAIN
@option.NETWORK
@option.HIDDEN_TEMPLATE
@with_output
@option.build_options
def stage_run_command(
    output: OutputStyle, kind: str, options_path: Path, base_reference: str,
    output_path: Path | None, options: BuildOptions,
) -> None:  # fmt: skip
    """Run the stage TYPE alone on a base image, in a helper VM, and show the result.

    TYPE is also the name of a file stages/TYPE.yml with one stage, beside FILE.
    """
    if output_path is not None and output_path.suffix != ".tar":
        raise UsageError(
            f"--output: expected a name that ends with .tar, found '{output_path}'",
            hint="The archive is not compressed; zstd or gzip does that.",
        )
    export = output_path is not None
    plan = make_stage_plan(kind, options_path, options, base=base_reference, export=export)
    with output.progress_shown() as progress:
        result = single_stage.run_stage(plan, output_path, progress)
    if output.as_json:
        say_json(result.model_dump_json(indent=2))
    elif not output.quiet:
        output.draw(lambda console: print_single(result, console))

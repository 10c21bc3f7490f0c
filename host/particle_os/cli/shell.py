"""The command `shell`."""

from __future__ import annotations

from pathlib import Path

import click

from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, command, with_output
from particle_os.cli.usage import completion
from particle_os.errors import UsageError
from particle_os.jobs import shell
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan
from particle_os.sandbox.acceleration import find_acceleration
from particle_os.system.workspace import workspace


@command("shell")
@option.RECIPE
@option.VARIABLES
@option.ALLOW_OUTSIDE
@option.ALLOW_ENV
@click.option("--at", metavar="STAGE", shell_complete=completion.stages_of_recipe,
              help="Open the state after STAGE (number, name or type).")  # fmt: skip
@click.option(
    "--failed", is_flag=True, help="Open the state in which a stage of the last build failed."
)
@click.option("--apt-indexes", is_flag=True,
              help="Fetch apt's indexes first, which no state has.")  # fmt: skip
@option.SAME_BASE
@option.SAME_ARCHITECTURE
@option.SAME_MIRROR
@option.SCRATCH_SIZE
@option.SOURCE_DATE
@option.PLAIN
@option.NETWORK
@option.APT_PROXY
@option.ACCEL
@option.memory_option("2G")
@option.CPUS
@option.HIDDEN_TEMPLATE
@with_output
@option.build_options
def shell_command(
    output: OutputStyle,
    recipe_path: Path,
    options: BuildOptions,
    at: str | None,
    failed: bool,
    apt_indexes: bool,
) -> int:
    """Open a root shell in RECIPE's system as a stage left it, in a VM; Ctrl-] ends it."""
    if at is not None and failed:
        raise UsageError("--at and --failed exclude each other")
    if apt_indexes and options.network is not None:
        raise UsageError("--apt-indexes needs the network: leave out '--network none'")
    plan = make_plan(recipe_path, options)
    with output.progress_shown() as progress:
        with workspace() as work:
            log, note, machine = progress.line, progress.note, plan.loaded.architecture
            acceleration = find_acceleration(
                options.accel, options.template, work, machine, log=log, note=note
            )
        return shell.enter(
            plan, acceleration, progress, at=at, failed=failed, apt_indexes=apt_indexes
        )

"""The command line: arguments, exit codes, and how errors are shown; nothing else."""

from __future__ import annotations

import signal
import sys

import click

from particle_os import __version__
from particle_os.cli.boot_test import boot_test_command
from particle_os.cli.build import build_command, shell_command
from particle_os.cli.cache import cache_group
from particle_os.cli.init import init_command
from particle_os.cli.inspect import inspect_command
from particle_os.cli.run import run_command
from particle_os.cli.stage import stage_group
from particle_os.cli.tell import (
    doctor_command,
    explain_command,
    list_command,
    schema_command,
    validate_command,
    version_command,
)
from particle_os.errors import EXIT_SIGNAL, UsageError
from particle_os.outcome import show


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Builds bootable Debian images as an ordinary user and proves that they boot."""


for command in (
    init_command, build_command, shell_command, boot_test_command, run_command, inspect_command,
    stage_group,
    validate_command, list_command, explain_command, doctor_command, cache_group, schema_command,
    version_command,
):  # fmt: skip
    cli.add_command(command)


@cli.command("help")
@click.argument("command", required=False)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> None:
    """Show help for particle-os or for COMMAND."""
    assert context.parent is not None
    if command is None:
        click.echo(context.parent.get_help())
        return
    found = cli.get_command(context, command)
    if found is None:
        known = ", ".join(cli.list_commands(context))
        raise click.UsageError(f"there is no command '{command}'; there are: {known}")
    with click.Context(found, info_name=command, parent=context.parent) as inner:
        click.echo(found.get_help(inner))


def main() -> None:
    """The console script."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        if "--json" in sys.argv:
            show(UsageError(error.format_message()), error.exit_code, as_json=True)
        else:
            error.show()
        code = error.exit_code
    except click.Abort:
        code = EXIT_SIGNAL + signal.SIGINT
    sys.exit(code or 0)

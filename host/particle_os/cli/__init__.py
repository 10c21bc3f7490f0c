"""The command line: arguments, exit codes, and how errors are shown; nothing else."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

import click

from particle_os import __version__
from particle_os.cli.outcome import show
from particle_os.errors import EXIT_SIGNAL, UsageError

# Where each command is; only the one that is called is loaded.
COMMANDS = {
    "boot-test": "boot_test:boot_test_command",
    "build": "build:build_command",
    "cache": "cache:cache_group",
    "doctor": "about:doctor_command",
    "explain": "about:explain_command",
    "init": "init:init_command",
    "inspect": "inspect:inspect_command",
    "list": "about:list_command",
    "run": "run:run_command",
    "schema": "about:schema_command",
    "shell": "shell:shell_command",
    "stage": "stage:stage_group",
    "validate": "validate:validate_command",
    "version": "about:version_command",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*COMMANDS, *self.commands])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, name = COMMANDS[cmd_name].partition(":")
        found: click.Command = getattr(import_module(f"{__name__}.{module}"), name)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Builds bootable Debian images as an ordinary user and proves that they boot."""


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

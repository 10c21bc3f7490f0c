"""The command line: its commands, their arguments, and the errors as the user sees them."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from particle_os import __version__
from particle_os.cli.command import OutputStyle, show_error, with_output
from particle_os.cli.usage import settings
from particle_os.cli.usage.commands import CommandGroup, json_asked, told
from particle_os.errors import EXIT_SIGNAL, UsageError

# The module and the name of each command, in the order of the work. Only the command that is called
# is loaded.
COMMANDS = {
    "doctor": "host.commands:doctor_command",
    "init": "init:init_command",
    "list": "list:list_command",
    "explain": "about:explain_command",
    "validate": "validate:validate_command",
    "build": "build:build_command",
    "inspect": "inspect:inspect_command",
    "boot-test": "boot_test:boot_test_command",
    "run": "run:run_command",
    "export": "publishing.export:export_command",
    "push": "publishing.push:push_command",
    "pull": "publishing.pull:pull_command",
    "shell": "shell:shell_command",
    "stage": "stage:stage_group",
    "ostree": "ostree.commands:ostree_group",
    "cache": "host.cache:cache_group",
    "farm": "farm.commands:farm_group",
    "bench": "host.commands:bench_command",
    "completion": "about:completion_command",
    "schema": "about:schema_command",
    "version": "about:version_command",
}


# They help to mend a config.toml that is wrong; `doctor` shows what is wrong.
WITHOUT_SETTINGS = ("doctor", "help", "completion")


class _Commands(CommandGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *self.commands]

    def load(self, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return super().load(name)
        module, _, command = COMMANDS[name].partition(":")
        found: click.Command = getattr(import_module(f"{__name__}.{module}"), command)
        return found

    def words(self) -> tuple[str, ...]:
        return ()


@click.group(cls=_Commands)
@click.version_option(__version__, "-V", "--version", message="%(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Builds bootable Debian images as an ordinary user and proves that they boot."""
    try:
        context.default_map = settings.read(context)
    except UsageError as error:
        if context.invoked_subcommand in WITHOUT_SETTINGS or {"-h", "--help"} & {*sys.argv[1:]}:
            return
        show_error(error, error.exit_code, as_json=json_asked(context, sys.argv[1:]))
        context.exit(error.exit_code)


def _words(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The commands within the command that the words before name; imports only then."""
    from particle_os.cli.usage.completion import commands

    return commands(context, parameter, incomplete)


def _named(
    context: click.Context, parameter: click.Parameter, words: tuple[str, ...]
) -> click.Context:
    """The context of the command that the words name. Raises click.UsageError."""
    found = context.find_root()
    for word in words:
        found = _inner(found, word)
    return found


@cli.command("help")
@click.argument("words", metavar="[COMMAND]...", nargs=-1, callback=_named, shell_complete=_words)
@with_output
def help_command(output: OutputStyle, words: click.Context) -> None:
    """Show the help for particle-os or for COMMAND, such as 'build' or 'cache prune'."""
    text = words.get_help()
    output.show({"command": words.command_path, "help": text}, text.splitlines())


def _inner(context: click.Context, word: str) -> click.Context:
    """The context of a command within the command of `context`. Raises click.UsageError."""
    group = context.command
    if not isinstance(group, CommandGroup):
        raise click.UsageError(f"'{context.command_path}' has no commands of its own")
    found = group.get_command(context, word)
    if found is None:
        raise group.no_command(context, word)
    return click.Context(found, info_name=word, parent=context)


def main() -> None:
    """Runs the command line; the console script."""
    try:
        code = cli.main(prog_name="particle-os", standalone_mode=False)
    except click.ClickException as error:
        as_json = json_asked(getattr(error, "ctx", None), sys.argv[1:])
        show_error(told(error), error.exit_code, as_json=as_json)
        code = error.exit_code
    except click.Abort:
        code = EXIT_SIGNAL + signal.SIGINT
    sys.exit(code or 0)

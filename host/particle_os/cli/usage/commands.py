"""Commands whose help shows options in groups, and groups that know near names of commands."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import click
from click.core import ParameterSource

from particle_os.documents.words import did_you_mean, nearest
from particle_os.errors import UsageError

PREFIX = "PARTICLE_OS"
# The options of each group, in the order of the work. All other options are the command's own.
# Two options with the flag --format have different names.
GROUPS = {
    "The recipe": (
        "--set", "--architecture", "--base", "--allow-outside", "--allow-env", "--dry-run",
    ),
    "Network and packages": ("--network", "--mirror", "--apt-proxy", "--apt-indexes"),
    "The virtual machine": (
        "--accel", "--memory", "--cpus", "--scratch-size", "--firmware", "given_format",
        "--template",
    ),
    "Earlier builds": ("--no-cache", "--refresh", "--max-age", "--plain", "--no-save-memory"),
    "Shared cache": ("--cache-from", "--cache-keys", "--cache-to", "--cache-sign"),
    "Several images and machines": ("--jobs", "--fail-fast", "--on", "--farm-keys"),
    "The result": (
        "--output", "--source-date", "--no-boot-test", "--junit", "--summary", "--report",
        "--evidence", "--keep-on-failure",
    ),
}  # fmt: skip
OWN = "Options"
SHOWN = "What is shown"
JSON = "as_json"
MESSAGES = (
    "style", "--verbose", "--quiet", "--json", "--debug", "--progress", "--notify", "--help",
)  # fmt: skip


HELP = ["-h", "--help"]


class Command(click.Command):
    """A command whose help shows its options in groups."""

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """The names of the option, also for a command that was first run without its group."""
        return HELP

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, options in grouped(self.get_params(ctx)).items():
            rows = [row for option in options if (row := option.get_help_record(ctx))]
            with formatter.section(title):
                formatter.write_dl(rows)
        if any(option.envvar for option in self.params):
            name = variable(*ctx.command_path.split()[1:], "json")
            formatter.write_paragraph()
            formatter.write_text(
                f"An environment variable sets an option, too: {name}=1 is --json. So does the "
                "file config.toml that 'particle-os doctor' names."
            )


def grouped(parameters: Sequence[click.Parameter]) -> Mapping[str, list[click.Option]]:
    """The visible options in their groups, in the order of the help; no group is empty."""
    titles = {OWN: (), **GROUPS, SHOWN: MESSAGES}
    found: dict[str, list[click.Option]] = {title: [] for title in titles}
    for option in parameters:
        if isinstance(option, click.Option) and not option.hidden:
            named = {flag(option), option.name}
            title = next((t for t, names in titles.items() if named & set(names)), OWN)
            found[title].append(option)
    return {title: options for title, options in found.items() if options}


def flag(option: click.Option) -> str:
    """The long name of an option, such as --output."""
    return max(option.opts, key=len)


def variable(*words: str) -> str:
    """The name of an environment variable, such as PARTICLE_OS_STAGE_RUN_CPUS."""
    return "_".join([PREFIX, *words]).upper().replace("-", "_")


class NoCommand(click.UsageError):
    """A word is no command of a group."""

    def __init__(self, brief: str, hint: str | None, context: click.Context) -> None:
        super().__init__(f"{brief}; {hint}", context)
        self.brief, self.hint = brief, hint


def told(error: click.ClickException) -> UsageError:
    """An error about the command line in the style of all errors, with what to do."""
    if isinstance(error, NoCommand):
        return UsageError(error.brief, hint=error.hint)
    context = getattr(error, "ctx", None)
    words = context.command_path.split()[1:] if context is not None else ()
    hint = f"'{' '.join(['particle-os help', *words])}' shows the arguments and options."
    return UsageError(error.format_message(), where=_variable_of(error), hint=hint)


def _variable_of(error: click.ClickException) -> str | None:
    """The environment variable whose value is wrong; None for a value from elsewhere."""
    option, context = getattr(error, "param", None), getattr(error, "ctx", None)
    if option is None or context is None or option.name is None:
        return None
    if context.get_parameter_source(option.name) is not ParameterSource.ENVIRONMENT:
        return None
    names = [option.envvar] if isinstance(option.envvar, str) else option.envvar or ()
    found = next((name for name in names if os.environ.get(name)), None)
    return found and f"the environment variable {found}"


class CommandGroup(click.Group):
    """A group that knows near names, and that gives each option its environment variable."""

    command_class = Command

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """The names of the option, as `Command` has them."""
        return HELP

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = self.load(cmd_name)
        for option in found.params if found else ():
            if isinstance(option, click.Option):
                own = variable(*self.words(), cmd_name, flag(option).lstrip("-"))
                declared = [option.envvar] if isinstance(option.envvar, str) else option.envvar
                option.envvar = list(dict.fromkeys([own, *(declared or ())]))
        return found

    def load(self, name: str) -> click.Command | None:
        """The command of this name; None when there is none."""
        return self.commands.get(name)

    def words(self) -> tuple[str, ...]:
        """The words before the names of this group's commands."""
        return (self.name or "",)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            raise self.no_command(ctx, args[0])
        return super().resolve_command(ctx, args)

    def no_command(self, ctx: click.Context, word: str) -> click.UsageError:
        """The error for a word that is no command of this group."""
        known = self.list_commands(ctx)
        hint = did_you_mean(nearest(word, known), known)
        return NoCommand(f"there is no command '{word}'", hint, ctx)


def json_asked(context: click.Context | None, words: Sequence[str]) -> bool:
    """Whether the user asks for JSON, also where click could not read the command line.

    `context` is the one of click's error. `words` are the arguments of the program.
    """
    if context is not None and JSON in context.params:
        return bool(context.params[JSON])
    given = "--json" in words[: words.index("--") if "--" in words else None]
    found = _innermost(context.find_root(), words) if context is not None else None
    if given or found is None:
        return given
    for option in found.command.params:
        if option.name == JSON:
            try:
                # The environment, or the user's config.toml.
                value, _ = option.consume_value(found, {})
                return bool(option.type_cast_value(found, value))
            except click.BadParameter:
                return False
    return False


def _innermost(context: click.Context, words: Sequence[str]) -> click.Context:
    """The context of the command that the first words name, below the context of the program."""
    for word in words:
        group = context.command
        found = group.get_command(context, word) if isinstance(group, click.Group) else None
        if found is None:
            break
        context = click.Context(found, info_name=word, parent=context)
    return context

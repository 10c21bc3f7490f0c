"""The user's config.toml: values for the options of each command."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import platformdirs

from particle_os.cli.usage.commands import flag
from particle_os.documents.words import did_you_mean, nearest
from particle_os.errors import UsageError
from particle_os.system.regular_file import read_regular

LIMIT = 1 << 20


def settings_file() -> Path | None:
    """The path of the user's file, which need not exist; None for a user without a home."""
    try:
        return platformdirs.user_config_path("particle-os") / "config.toml"
    except RuntimeError:
        return None


def read(context: click.Context) -> dict[str, Any]:
    """The values of the file as click's default_map; empty without a file.

    A table has the name of a command, and a key the name of an option: `[cache.prune]`,
    `size = "5G"`. Raises UsageError for an unknown name or a wrong value.
    """
    path = settings_file()
    if path is None or not path.exists():
        return {}
    try:
        found = tomllib.loads(read_regular(path, LIMIT).decode())
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}",
            hint="Make it a regular file that you can read, or remove it.",
        ) from error
    except ValueError as error:
        hint = 'Write it as TOML: [build] in one line, memory = "4G" in the next.'
        raise UsageError(f"no valid TOML: {error}", where=str(path), hint=hint) from error
    return _of_group(context, found, path, ())


def _of_group(
    context: click.Context, table: Mapping[str, Any], path: Path, words: tuple[str, ...]
) -> dict[str, Any]:
    group = context.command
    assert isinstance(group, click.Group)
    made: dict[str, Any] = {}
    for name, value in table.items():
        command = group.get_command(context, name)
        if command is None:
            known = group.list_commands(context)
            raise _error(f"there is no command '{name}'", name, known, path, words)
        if not isinstance(value, dict):
            raise UsageError(
                f"'{name}' is no table",
                where=_place(path, words),
                hint=f"Write [{'.'.join([*words, name])}] in a line, and its options below.",
            )
        inner = click.Context(command, info_name=name, parent=context)
        is_group = isinstance(command, click.Group)
        of = _of_group if is_group else _of_command
        made[name] = of(inner, value, path, (*words, name))
    return made


def _of_command(
    context: click.Context, table: Mapping[str, Any], path: Path, words: tuple[str, ...]
) -> dict[str, Any]:
    options = {
        flag(o).lstrip("-"): o for o in context.command.params if isinstance(o, click.Option)
    }
    made: dict[str, Any] = {}
    for name, value in table.items():
        if name not in options:
            raise _error(f"there is no option '{name}'", name, list(options), path, words)
        option = options[name]
        try:
            option.process_value(context, _fitting(option, value))
        except click.BadParameter as error:
            hint = f"'particle-os help {' '.join(words)}' describes the option."
            raise UsageError(
                f"'{name}': {error.message}", where=_place(path, words), hint=hint
            ) from error
        made[option.name or ""] = value
    return made


def _fitting(option: click.Option, value: Any) -> Any:
    """`value` if it has the kind of the option. Raises click.BadParameter."""
    kind: type
    if option.is_flag:
        kind, word = bool, "true or false"
    elif isinstance(option.type, click.IntRange):
        kind, word = int, "a number"
    else:
        kind, word = str, "a text in quotes"
    if option.multiple and not isinstance(value, list):
        raise click.BadParameter('expected a list, such as ["a", "b"]')
    values = value if option.multiple else [value]
    # A bool is an int.
    if any(type(each) is not kind for each in values):
        raise click.BadParameter(f"expected {word}")
    return value


def _error(
    brief: str, name: str, known: list[str], path: Path, words: tuple[str, ...]
) -> UsageError:
    return UsageError(
        brief, where=_place(path, words), hint=did_you_mean(nearest(name, known), known)
    )


def _place(path: Path, words: tuple[str, ...]) -> str:
    return f"{path}, [{'.'.join(words)}]" if words else str(path)


def description() -> str:
    """The file that is read, or the file that would be."""
    path = settings_file()
    if path is None:
        return "none, because you have no home directory"
    return f"{path} was read" if path.exists() else f"none; {path} would be read"

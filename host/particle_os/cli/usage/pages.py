"""The manual pages, man(7), of particle-os and its commands. `make generate` writes them.

They show the same groups of options as the help, and nothing that depends on click's version.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from particle_os.cli.usage.commands import flag, grouped, variable

SECTION = 1


def pages(context: click.Context) -> Iterator[tuple[str, str]]:
    """The name of the file and the text of the page for a command, and for all commands in it."""
    command, name = context.command, context.command_path.replace(" ", "-")
    inner = list(_inner(context))
    lines = [
        f'.TH {_quoted(name.upper())} {SECTION} "" "particle-os" "particle-os"',
        ".SH NAME",
        f"{_plain(name)} \\- {_plain(_brief(command))}",
        ".SH SYNOPSIS",
        f".B {_plain(context.command_path)}",
        _plain(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
    ]
    for title, options in grouped(command.get_params(context)).items():
        lines += [f".SH {_quoted(title.upper())}", *_options(context, options)]
    if inner:
        lines += [".SH COMMANDS"]
        for each in inner:
            lines += [".TP", f".B {_plain(each.command_path)}", _plain(_brief(each.command))]
    if any(isinstance(option, click.Option) and option.envvar for option in command.params):
        lines += [".SH ENVIRONMENT", *_environment(context)]
    above = [context.parent.command_path] if context.parent else []
    if named := [*above, *(each.command_path for each in inner)]:
        references = [f".BR {_plain(path.replace(' ', '-'))} ({SECTION})" for path in named]
        lines += [".SH SEE ALSO", *references]
    yield f"{name}.{SECTION}", "\n".join(lines) + "\n"
    for each in inner:
        yield from pages(each)


def _inner(context: click.Context) -> Iterator[click.Context]:
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield click.Context(command, info_name=name, parent=context)


def _brief(command: click.Command) -> str:
    return (command.help or "").partition("\n")[0].rstrip(".")


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield _plain(" ".join(paragraph.split()))


def _options(context: click.Context, options: list[click.Option]) -> Iterator[str]:
    for option in options:
        names = ", ".join(f"\\fB{_plain(name)}\\fR" for name in sorted(option.opts, key=len))
        value = "" if option.is_flag else f" \\fI{_plain(option.make_metavar(context))}\\fR"
        default = f" [default: {option.default}]" if option.show_default else ""
        yield from (".TP", f"{names}{value}", _plain(f"{option.help or ''}{default}"))


def _environment(context: click.Context) -> Iterator[str]:
    words = context.command_path.split()[1:]
    for option in context.command.params:
        if isinstance(option, click.Option) and not option.hidden:
            declared = [option.envvar] if isinstance(option.envvar, str) else option.envvar or ()
            own = variable(*words, flag(option).lstrip("-"))
            names = dict.fromkeys([own, *declared])
            yield from (".TP", f".B {_plain(', '.join(names))}", _plain(flag(option)))


def _plain(text: str) -> str:
    """The text as roff shows it: roff reads no part as a request."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe


def _quoted(text: str) -> str:
    return f'"{_plain(text)}"'

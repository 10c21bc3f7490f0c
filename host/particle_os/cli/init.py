"""The command `init`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from particle_os.architecture import ARCHITECTURES, usual
from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, command, say, say_json, with_output
from particle_os.cli.options import PathType
from particle_os.cli.usage import completion
from particle_os.documents.words import did_you_mean, nearest
from particle_os.errors import UsageError
from particle_os.recipe.shipped import shipped, written_for

# The schema lies beside the shipped recipes only.
SCHEMA_LINE = "# yaml-language-server: $schema=./schema.json\n"


@command("init")
@click.argument("template", default="minimal", shell_complete=completion.shipped_recipes)
@click.option("-o", "--output", "path", type=PathType(), metavar="FILE",
              help="The file to write, or - to print it; TEMPLATE.yml by default.")  # fmt: skip
@option.OWN_ARCHITECTURE
@with_output
def init_command(
    output: OutputStyle, template: str, path: Path | None, architecture: str | None
) -> None:
    """Write a commented recipe to start from, such as minimal, server or container.

    'particle-os list' describes each of them.
    """
    templates = shipped()
    if template not in templates:
        names = sorted(templates)
        hint = did_you_mean(nearest(template, names), names)
        raise UsageError(f"there is no recipe '{template}'", hint=hint)
    path = path or Path(f"{template}.yml")
    chosen = None if architecture is None else ARCHITECTURES[architecture]
    text = written_for(template, chosen, usual()).removeprefix(SCHEMA_LINE)
    if str(path) == "-":
        say(text)
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{path} is there already", hint="Name another with --output.") from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            hint="Name a file in a directory of yours with --output.",
        ) from error
    if output.as_json:
        say_json(json.dumps({"path": str(path)}))
    elif not output.quiet:
        say(f"{path} written; build it with: particle-os build {path}")

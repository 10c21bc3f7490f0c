"""The commands `explain`, `completion`, `schema` and `version`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from particle_os import __version__
from particle_os.cli.command import OutputStyle, command, say_json, with_output
from particle_os.cli.usage import completion
from particle_os.recipe.description import own_schema, reference


@command("explain")
@click.argument("path", metavar="STAGE[.OPTION]", shell_complete=completion.explained)
@with_output
def explain_command(output: OutputStyle, path: str) -> None:
    """Explain a stage, or one of its options.

    'recipe' explains the keys of a recipe, 'include' the files of stages that a recipe can include,
    'check' the checks of boot tests, and 'check.KIND' one of them. A key of the recipe, such as
    base-image, and the kind of a check, such as unit, also work alone unless a stage has that name.
    The files stages/NAME.yml of this directory are stages, too.
    """
    found = reference.find(path, Path())
    output.show(asdict(found), [reference.text(found)])


@command("completion")
@click.argument("shell", type=click.Choice(completion.SHELLS))
@with_output
def completion_command(output: OutputStyle, shell: str) -> None:
    """Print a script for a shell, which then completes commands, options, stages and recipes.

    For bash, put 'eval "$(particle-os completion bash)"' in ~/.bashrc; for zsh, the same with zsh
    in ~/.zshrc. For fish, write it to ~/.config/fish/completions/particle-os.fish.
    """
    script = completion.script(click.get_current_context().find_root().command, shell)
    output.show({"shell": shell, "script": script}, script.splitlines())


@command("schema")
@click.option(
    "--included", is_flag=True, help="Print the schema of the files of stages that recipes include."
)
@with_output
def schema_command(output: OutputStyle, included: bool) -> None:
    """Print the JSON Schema of recipes (Draft 7), for editors.

    The files stages/NAME.yml of this directory are stages in it, too.
    """
    found = own_schema.included(Path()) if included else own_schema.recipes(Path())
    say_json(json.dumps(found, indent=2, sort_keys=True))


@command("version")
@with_output
def version_command(output: OutputStyle) -> None:
    """Print the version of particle-os."""
    output.show({"version": __version__}, [__version__])

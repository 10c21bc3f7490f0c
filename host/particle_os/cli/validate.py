"""The command `validate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from particle_os.cli.command import (
    OutputStyle,
    command,
    say,
    say_json,
    show_problems,
    with_output,
)
from particle_os.cli.options import ALLOW_OUTSIDE, ARCHITECTURE, VARIABLES, RecipeType, given_recipe
from particle_os.cli.usage import completion
from particle_os.documents.document import Source
from particle_os.errors import EXIT_USAGE, InvalidDocument, Problem
from particle_os.recipe import loading
from particle_os.recipe.model import LoadedRecipe
from particle_os.recipe.parameters.variables import NoSuchVariable


def _recipes(
    context: click.Context, parameter: click.Parameter, value: tuple[Path, ...]
) -> tuple[Path, ...]:
    return value if value or context.resilient_parsing else (given_recipe(None),)


@command("validate")
@click.argument("recipes", nargs=-1, type=RecipeType(), metavar="[RECIPE]...",
                callback=_recipes, shell_complete=completion.recipes)  # fmt: skip
@VARIABLES
@ARCHITECTURE
@ALLOW_OUTSIDE
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="The format of the errors; github: annotations of GitHub Actions.",
)
@with_output
def validate_command(
    output: OutputStyle,
    recipes: tuple[Path, ...],
    variables: dict[str, str],
    architecture: str | None,
    allow_outside: bool,
    style: str,
) -> int:
    """Check recipes, or particle-os.yml, and list all their errors."""
    problems: list[Problem] = []
    notes: list[Problem] = []
    unknown: list[dict[str, NoSuchVariable]] = []
    for recipe, values in _images(recipes, variables, architecture):
        try:
            unknown.append({})
            if isinstance(recipe, InvalidDocument):
                raise recipe
            notes += _load_with(recipe, values, unknown[-1], allow_outside, architecture).notes
        except InvalidDocument as invalid:
            problems += invalid.problems
            notes += invalid.notes
    # A value that no recipe has a variable for is an error.
    for name in variables:
        if all(name in found for found in unknown):
            # Prefer the error that suggests a variable of a similar name.
            raise min((found[name] for found in unknown), key=lambda e: not e.is_near)
    # Several recipes may include the same file.
    problems, notes = list(dict.fromkeys(problems)), list(dict.fromkeys(notes))
    _show(output, style, len(recipes), problems, notes)
    return EXIT_USAGE if problems else 0


def _images(
    recipes: Sequence[Path], variables: Mapping[str, str], architecture: str | None
) -> Iterator[tuple[Source | InvalidDocument, dict[str, str]]]:
    """Each image of each recipe: the document, which is read once, and the variables' values.

    A file that is no document is one image, with its error in place of the document.
    """
    for path in recipes:
        try:
            recipe = loading.read(path)
        except InvalidDocument as invalid:
            yield invalid, {}
            continue
        for values in loading.images(recipe, variables, architecture):
            yield recipe, values


def _show(
    output: OutputStyle, style: str, count: int, problems: list[Problem], notes: list[Problem]
) -> None:
    if output.as_json or style == "json":
        data = {"problems": [p.data() for p in problems], "notes": [n.data() for n in notes]}
        say_json(json.dumps(data, indent=2))
    elif style == "github":
        for problem in problems:
            click.echo(problem.annotation("error"))
        for note in notes:
            click.echo(note.annotation("notice"))
    else:
        show_problems(problems, [] if output.quiet else notes, every=output.verbose)
        if not output.quiet and not problems:
            say(f"{count} valid")


def _load_with(
    recipe: Source,
    variables: dict[str, str],
    unknown: dict[str, NoSuchVariable],
    allow_outside: bool,
    architecture: str | None,
) -> LoadedRecipe:
    """Loads a recipe with the values that it has variables for; `unknown` gets the others."""
    while True:
        try:
            return loading.load(
                recipe, variables, allow_outside=allow_outside, architecture=architecture
            )
        except NoSuchVariable as error:
            unknown[error.given] = error
            del variables[error.given]

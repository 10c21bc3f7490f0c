"""The command `list`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click
from particle_agent.stages import RECIPE_STAGES

from particle_os.cli.command import OutputStyle, command, with_output
from particle_os.cli.options import PathType
from particle_os.errors import UsageError, printable
from particle_os.jobs.delivery import results
from particle_os.recipe import loading, reference
from particle_os.recipe.model import stage_name
from particle_os.recipe.shipped import shipped
from particle_os.report.results import Result
from particle_os.report.table import human_bytes
from particle_os.sandbox.template import load_template, templates

# A name, and its description on one line.
Row = tuple[str, str]
IMAGES = Path("out")
LISTED = ("recipes", "stages", "checks", "templates", "images")


@command("list")
@click.argument("what", type=click.Choice(LISTED), default="recipes")
@click.option("-o", "--output", "output_directory", type=PathType(file_okay=False),
              default=IMAGES, show_default=True, help="The directory of the images.")  # fmt: skip
@with_output
def list_command(output: OutputStyle, what: str, output_directory: Path) -> None:
    """List the shipped recipes, stages, checks of boot tests, templates, or built images.

    'build' and 'init' take the name of a recipe. Templates are the helper VMs of --template.
    """
    match what:
        case "images":
            rows = list(_images(output_directory))
        case "recipes":
            rows = list(_recipes())
        case "templates":
            rows = list(_templates())
        case "checks":
            rows = [(o.name, o.description) for o in reference.all_checks().options]
        case _:
            rows = [(stage_name(k), (k.__doc__ or "").splitlines()[0]) for k in RECIPE_STAGES]
    width = max((len(name) for name, _ in rows), default=0)
    output.show(
        [{"name": name, "description": description} for name, description in rows],
        (f"{name:<{width}}  {description}" for name, description in rows),
    )


def _recipes() -> Iterator[Row]:
    for name, path in shipped().items():
        yield name, loading.load(path).recipe.description


def _templates() -> Iterator[Row]:
    for path in templates():
        yield path.stem, load_template(path.stem).description


def _images(directory: Path) -> Iterator[Row]:
    # The default directory does not exist before the first build.
    if not directory.is_dir() and directory != IMAGES:
        raise UsageError(f"there is no directory {directory}")
    for result in results(directory):
        yield _image(directory, result)


def _image(directory: Path, result: Result) -> Row:
    """The first file of a build; the time, status and files of the build."""
    files = ", ".join(f"{a.format} {human_bytes(a.allocated_bytes)}" for a in result.artifacts)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(result.created))
    first = directory / result.artifacts[0].path
    return printable(str(first)), printable(f"{when}, {result.status}, {files}")

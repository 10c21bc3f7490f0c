"""The command `list`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
from particle_agent.stages import RECIPE_STAGES

from particle_os.cli.command import OutputStyle, command, with_output
from particle_os.cli.options import PathType
from particle_os.errors import UsageError, printable, whole_line
from particle_os.jobs.delivery import results
from particle_os.recipe import loading
from particle_os.recipe.description import reference
from particle_os.recipe.model import stage_name
from particle_os.recipe.shipped import shipped
from particle_os.report.results import Result
from particle_os.report.table import human_bytes
from particle_os.sandbox.template import load_template, templates


class Row(NamedTuple):
    """A name, its description on one line, and its file, if it is one."""

    name: str
    description: str
    path: Path | None = None


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
            rows = [Row(o.name, o.description) for o in reference.all_checks().options]
        case _:
            rows = list(_stages())
    width = max((len(row.name) for row in rows), default=0)
    output.show(
        [_document(row) for row in rows],
        (f"{row.name:<{width}}  {row.description}" for row in rows),
    )


def _document(row: Row) -> dict[str, str]:
    found = {"name": row.name, "description": row.description}
    return found if row.path is None else {**found, "path": str(row.path)}


def _recipes() -> Iterator[Row]:
    for name, path in shipped().items():
        yield Row(name, loading.load(path).recipe.description, path)


def _stages() -> Iterator[Row]:
    """The stages of particle-os, and the own ones of the recipes in the current directory."""
    for kind in RECIPE_STAGES:
        yield Row(stage_name(kind), (kind.__doc__ or "").splitlines()[0])
    for found, path in reference.own_stages(Path()):
        about = "".join(found.description.splitlines()[:1])
        yield Row(found.name, whole_line(about), path)


def _templates() -> Iterator[Row]:
    for path in templates():
        yield Row(path.stem, load_template(path.stem).description, path)


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
    return Row(printable(str(first)), printable(f"{when}, {result.status}, {files}"), first)

"""The commands that show what there is: recipes, stages, images, this host, this program."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import click
from particle_agent.stages import RECIPE_STAGES

from particle_os import __version__
from particle_os.cli.common import OutputStyle, PathType, common
from particle_os.errors import EXIT_INFRASTRUCTURE, UsageError, printable
from particle_os.jobs import doctor
from particle_os.jobs.delivery import results
from particle_os.recipe import loading, reference, schema
from particle_os.recipe.model import stage_name
from particle_os.report.results import Result
from particle_os.report.table import human_bytes
from particle_os.sandbox.template import load_template, templates
from particle_os.system.workspace import data_directory

IMAGES = Path("out")
LISTED = ("recipes", "stages", "checks", "templates", "images")


@click.command("list")
@click.argument(
    "what",
    type=click.Choice(LISTED),
    default="recipes",
)
@click.option("--output", "output_directory", type=PathType(file_okay=False),
              default=IMAGES, show_default=True, help="Where the images are.")  # fmt: skip
@common
def list_command(output: OutputStyle, what: str, output_directory: Path) -> None:
    """List example recipes, stages, checks of boot tests, templates, or the images built.

    Templates are those of 'init' for recipes, and those of --template for helper VMs.
    """
    rows: list[tuple[str, str]] = []
    if what == "images":
        # Without the usual one, nothing has been built so far.
        if not output_directory.is_dir() and output_directory != IMAGES:
            raise UsageError(f"there is no directory {output_directory}")
        rows = [_image_row(output_directory, result) for result in results(output_directory)]
    elif what == "recipes":
        for path in sorted(data_directory("recipes").glob("*.yml")):
            rows.append((str(path), loading.load(path).recipe.description))
    elif what == "templates":
        starters = sorted(data_directory("recipes/templates").glob("*.yml"))
        rows = [(p.stem, f"recipe: {loading.load(p).recipe.description}") for p in starters]
        for path in templates():
            rows.append((path.stem, f"helper VM: {load_template(path.stem).description}"))
    elif what == "checks":
        rows = [(o.name, o.description) for o in reference.all_checks().options]
    else:
        rows = [(stage_name(k), (k.__doc__ or "").splitlines()[0]) for k in RECIPE_STAGES]
    if output.as_json:
        click.echo(json.dumps([{"name": n, "description": d} for n, d in rows], indent=2))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, description in rows:
        click.echo(f"{name:<{width}}  {description}")


def _image_row(directory: Path, result: Result) -> tuple[str, str]:
    """The first file of a build, and what is known of it."""
    files = ", ".join(f"{a.format} {human_bytes(a.allocated_bytes)}" for a in result.artifacts)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(result.created))
    first = directory / result.artifacts[0].path
    return printable(str(first)), printable(f"{when}, {result.status}, {files}")


@click.command("explain")
@click.argument("path", metavar="STAGE[.OPTION]")
@common
def explain_command(output: OutputStyle, path: str) -> None:
    """Tell what a stage or one of its options does.

    'recipe' stands for the recipe's own keys, 'include' for what can stand in a stage's place,
    'check' for the checks of boot tests, 'check.KIND' for one of them. A key of the recipe, such as
    base-image, and the kind of a check, such as unit, can stand alone where no stage has that name.
    """
    found = reference.find(path)
    if output.as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        click.echo(reference.text(found))


@click.command("doctor")
@common
def doctor_command(output: OutputStyle) -> int:
    """Look whether this host has what a build needs."""
    findings = doctor.examine()
    if output.as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=2))
    else:
        signs = {"ok": "ok     ", "warning": "warning", "missing": "MISSING"}
        for finding in findings:
            click.echo(f"{signs[finding.status]}  {finding.what}: {finding.detail}")
            if finding.status != "ok" and finding.advice:
                click.echo(f"         do: {finding.advice}")
    return EXIT_INFRASTRUCTURE if any(f.status == "missing" for f in findings) else 0


@click.command("schema")
@click.option("--included", is_flag=True, help="That of files of stages, which recipes include.")
@common
def schema_command(output: OutputStyle, included: bool) -> None:
    """Print the JSON Schema of recipes (Draft 7), for editors."""
    found = schema.included() if included else schema.recipes()
    click.echo(json.dumps(found, indent=2, sort_keys=True))


@click.command("version")
@common
def version_command(output: OutputStyle) -> None:
    """Print the version of particle-os."""
    click.echo(json.dumps({"version": __version__}) if output.as_json else __version__)

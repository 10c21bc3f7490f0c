"""The command `inspect`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from particle_agent.contract.decode import encode
from particle_agent.contract.inspection import Inspection

from particle_os.base.lookup import find_base
from particle_os.base.model import Base, ImageBase
from particle_os.cli import build_options as option
from particle_os.cli.build import show_plan
from particle_os.cli.build_options import build_options
from particle_os.cli.common import ACCEL, FORMAT, VARIABLES, OutputStyle, common, find_acceleration
from particle_os.errors import UsageError, printable
from particle_os.jobs.inspect import Inspector, open_inspector
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan, template_of
from particle_os.recipe.base_reference import check_base_reference
from particle_os.report.inspection import described
from particle_os.report.table import human_bytes
from particle_os.sandbox import verification
from particle_os.sandbox.verification import Verification, defective
from particle_os.system.workspace import cache_directory, workspace
from particle_os.vm.image_format import image_format

REFERENCE = re.compile(r"[a-z-]+:.+")
ARCHITECTURE = "amd64"


@click.command("inspect")
@click.argument("what", metavar="IMAGE|REF|RECIPE")
@FORMAT
@click.option("--verify", is_flag=True, help="Tell what is wrong with a disk image, too.")
@option.SAME_MIRROR
@option.HIDDEN_TEMPLATE
@VARIABLES
@ACCEL
@common
@build_options
def inspect_command(
    output: OutputStyle,
    what: str,
    given_format: str | None,
    verify: bool,
    options: BuildOptions,
) -> None:
    """Tell what a disk image, a base image (tar:PATH, docker://NAME) or a recipe (FILE.yml) holds.

    Images are read inside a helper VM and never changed.
    """
    is_recipe = what.endswith((".yml", ".yaml"))
    is_base = bool(REFERENCE.fullmatch(what))
    if (verify or given_format) and (is_recipe or is_base):
        flag = "--verify" if verify else "--format"
        raise UsageError(f"{flag} is for disk images, and {what} is none")
    if is_recipe:
        show_plan(make_plan(Path(what), options, with_secrets=False), output)
    elif is_base:
        found = _base(what, options)
        with _inspector(options, output) as inspector:
            inspection = inspector.base(found)
        _show(inspection, _container(found), None, output)
    else:
        _inspect_image(Path(what), given_format, options, output, verify=verify)


def _inspect_image(
    path: Path,
    given_format: str | None,
    options: BuildOptions,
    output: OutputStyle,
    *,
    verify: bool,
) -> None:
    """Shows what a disk image holds; raises Defective when it is to be verified, and has errors."""
    if not path.is_file():
        raise UsageError(
            f"there is no image {path}",
            hint="Name a disk image, a base image such as tar:PATH, or a recipe FILE.yml.",
        )
    driver = image_format(path, given_format)
    verified: Verification | None = None
    with _inspector(options, output) as inspector:
        if verify:
            inspection, verified = inspector.verify(path, driver)
        else:
            inspection = inspector.image(path, driver)
    _show(inspection, {}, verified, output)
    if verified is not None and verified.errors:
        raise defective(verified, None)


@contextmanager
def _inspector(options: BuildOptions, output: OutputStyle) -> Iterator[Inspector]:
    template = template_of(options)
    with output.progress_shown() as progress, workspace() as work:
        acceleration = find_acceleration(options.accel, options.template, work, progress)
        yield open_inspector(template, acceleration, work, progress)


def _container(found: Base) -> dict[str, Any]:
    """What a container image says of itself; empty for anything else."""
    if not isinstance(found, ImageBase):
        return {}
    image = found.image
    layers = [{"digest": layer.digest, "size": layer.size} for layer in image.layers]
    return {
        "digest": image.digest,
        "architecture": image.architecture,
        "layers": layers,
        "config": dict(image.config),
    }


def _base(reference: str, options: BuildOptions) -> Base:
    check_base_reference(reference, "inspect")
    found = find_base(reference, Path(), ARCHITECTURE, cache_directory(), mirror=options.mirror)
    if found is None:
        raise UsageError(
            f"the base image {reference} has not been made yet",
            hint="It is made by the first build that starts from it.",
        )
    return found


def _show(
    found: Inspection, container: dict[str, Any], verified: Verification | None, output: OutputStyle
) -> None:
    if output.as_json:
        about: dict[str, Any] = {"container": container} if container else {}
        if verified is not None:
            about["verification"] = verified.model_dump()
        click.echo(json.dumps({**encode(found), **about}, indent=2))
        return
    if container:
        count = f"{len(container['layers'])} layers"
        click.echo(f"{'container':<12} {container['digest']}, {container['architecture']}, {count}")
        for layer in container["layers"]:
            click.echo(f"{'layer':<12} {layer['digest']}, {human_bytes(layer['size'])}")
        for key, value in sorted(container["config"].items()):
            click.echo(f"{'config':<12} {printable(f'{key}: {json.dumps(value)}')}")
    for word, text in described(found):
        click.echo(f"{word:<12} {text}")
    for severity, text in verification.lines(verified) if verified else ():
        click.echo(f"{severity:<12} {text}")
    if verified is not None and not verified.findings:
        click.echo(f"{'verified':<12} nothing is wrong with it")
    if output.verbose and found.system is not None:
        for package in found.system.packages:
            text = f"{package.name} {package.version} {package.architecture}"
            click.echo(f"{'package':<12} {printable(text)}")

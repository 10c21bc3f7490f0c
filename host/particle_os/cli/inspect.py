"""The command `inspect`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
from particle_agent.contract.decode import encode
from particle_agent.contract.inspection import Inspection

from particle_os.base.lookup import find_base
from particle_os.base.model import Base, ImageBase
from particle_os.cli.build import show_plan
from particle_os.cli.common import ACCEL, FORMAT, VARIABLES, OutputStyle, common, find_acceleration
from particle_os.errors import UsageError, printable
from particle_os.jobs.inspect import Inspector, described
from particle_os.jobs.plan import BuildOptions, make_plan
from particle_os.recipe.base_reference import check_base_reference
from particle_os.report.table import human_bytes
from particle_os.sandbox import helper, verification
from particle_os.sandbox.template import load_template, with_mirror
from particle_os.sandbox.verification import Verification, defective
from particle_os.system.workspace import cache_directory, workspace
from particle_os.vm import accel
from particle_os.vm.image_format import image_format

REFERENCE = re.compile(r"[a-z-]+:.+")
ARCHITECTURE = "amd64"


@click.command("inspect")
@click.argument("what", metavar="IMAGE|REF|RECIPE")
@FORMAT
@click.option("--verify", is_flag=True, help="Tell what is wrong with a disk image, too.")
@click.option("--mirror", metavar="URL", envvar="PARTICLE_OS_MIRROR", help="As given to build.")
@click.option("--template", default="debian-trixie", hidden=True)
@VARIABLES
@ACCEL
@common
def inspect_command(
    output: OutputStyle, what: str, given_format: str | None, verify: bool, mirror: str | None,
    template: str,
    variables: dict[str, str], accel: accel.Wish,
) -> None:  # fmt: skip
    """Tell what a disk image, a base image (tar:PATH, docker://NAME) or a recipe (FILE.yml) holds.

    Images are read inside a helper VM and never changed.
    """
    is_recipe = what.endswith((".yml", ".yaml"))
    if (verify or given_format) and (is_recipe or REFERENCE.fullmatch(what)):
        option = "--verify" if verify else "--format"
        raise UsageError(f"{option} is for disk images, and {what} is none")
    if is_recipe:
        options = BuildOptions(output=Path(), template=template, mirror=mirror, variables=variables)
        show_plan(make_plan(Path(what), options, with_secrets=False), output)
        return
    found_base = _base(what, mirror) if REFERENCE.fullmatch(what) else None
    path = Path(what)
    if found_base is None and not path.is_file():
        raise UsageError(
            f"there is no image {what}",
            hint="Name a disk image, a base image such as tar:PATH, or a recipe FILE.yml.",
        )
    driver = "raw" if found_base is not None else image_format(path, given_format)
    progress = output.progress_sinks()
    try:
        with workspace() as work:
            described_helper = load_template(template)
            if mirror is not None:
                described_helper = with_mirror(described_helper, mirror)
            made = helper.ensure(
                described_helper, cache=cache_directory(), work=work,
                log=progress.line, note=progress.note,
            )  # fmt: skip
            acceleration = find_acceleration(accel, template, work, progress)
            inspector = Inspector(described_helper, made, acceleration, work, progress)
            verified: Verification | None = None
            if verify:
                found, verified = inspector.verify(path, driver)
            else:
                found = inspector.base(found_base) if found_base else inspector.image(path, driver)
    finally:
        progress.close()
    _show(found, _container(found_base), verified, output)
    if verified is not None and verified.errors:
        raise defective(verified, None)


def _container(found: Base | None) -> dict[str, Any]:
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


def _base(reference: str, mirror: str | None) -> Base:
    check_base_reference(reference, "inspect")
    found = find_base(reference, Path(), ARCHITECTURE, cache_directory(), mirror=mirror)
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

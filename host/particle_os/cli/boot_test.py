"""The command `boot-test`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from particle_os import boot_test, recipe
from particle_os.cli.common import ACCEL, MEMORY, Output, PathType, common, find_acceleration
from particle_os.errors import (
    printable,
)
from particle_os.outcome import not_booted
from particle_os.vm import accel
from particle_os.vm.firmware import FIRMWARES, Firmware
from particle_os.workspace import workspace


def _units(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> Any:
    for unit in value:
        if not recipe.is_unit_name(unit):
            raise click.BadParameter(f"'{unit}' is no systemd unit such as 'ssh.service'")
    return value


@click.command("boot-test")
@click.argument("image", type=PathType(exists=True, dir_okay=False))
@click.option("--format", "image_format", type=click.Choice(["raw", "qcow2"]),
              help="The image's format; found out by itself otherwise.")  # fmt: skip
@click.option(
    "--unit", "units", multiple=True, callback=_units, help="A systemd unit that must be active."
)
@click.option("--firmware", type=click.Choice(FIRMWARES), default="bios", show_default=True,
              help="What starts the machine; uefi-secure is UEFI with Secure Boot.")  # fmt: skip
@ACCEL
@MEMORY
@click.option(
    "--timeout", type=click.IntRange(1, 86400), metavar="SECONDS", help="How long to wait."
)
@click.option("--template", default="debian-trixie", show_default=True, hidden=True)
@common
def boot_test_command(
    output: Output, image: Path, image_format: Literal["raw", "qcow2"] | None,
    units: tuple[str, ...], firmware: Firmware, accel: accel.Wish, memory: int | None,
    timeout: int | None, template: str,
) -> int:  # fmt: skip
    """Boot IMAGE through a throwaway overlay and tell whether it came up."""
    found = boot_test.image_format(image)
    progress = output.progress_sinks()
    try:
        with workspace() as work:
            acceleration = find_acceleration(accel, template, work, progress)
            with progress.phase("boot test"):
                verdict = boot_test.boot(
                    image,
                    acceleration,
                    format=image_format or found,
                    firmware=firmware,
                    directory=work.path / "boot-test",
                    transcript=work.path / "console.log",
                    units=units,
                    memory=memory or boot_test.MEMORY,
                    timeout=timeout,
                )
    finally:
        progress.close()
    if output.as_json:
        click.echo(verdict.model_dump_json(indent=2))
    else:
        click.echo(f"{verdict.status} in {verdict.seconds:.1f} s: {printable(verdict.message)}")
    if not verdict.passed:
        raise not_booted(verdict, None)
    return 0

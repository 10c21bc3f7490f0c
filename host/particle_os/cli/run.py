"""The command `run`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from particle_os import boot_test, run
from particle_os.cli.common import ACCEL, MEMORY, Output, PathType, common, find_acceleration
from particle_os.vm import accel
from particle_os.vm import firmware as firmwares
from particle_os.vm.firmware import FIRMWARES, Firmware
from particle_os.workspace import workspace


@click.command("run")
@click.argument("image", type=PathType(exists=True, dir_okay=False))
@click.option("--format", "image_format", type=click.Choice(["raw", "qcow2"]),
              help="The image's format; found out by itself otherwise.")  # fmt: skip
@click.option("--firmware", type=click.Choice(FIRMWARES), default="bios", show_default=True,
              help="What starts the machine; uefi-secure is UEFI with Secure Boot.")  # fmt: skip
@click.option("--ssh", is_flag=True, help="Forward a port of 127.0.0.1 to its SSH server.")
@click.option("--keep", is_flag=True, help="Keep what is changed, in an overlay in this directory.")
@ACCEL
@MEMORY
@click.option("--cpus", type=click.IntRange(1, 64), default=run.CPUS, show_default=True,
              help="The machine's processors.")  # fmt: skip
@click.option("--template", default="debian-trixie", hidden=True)
@common
def run_command(
    output: Output, image: Path, image_format: Literal["raw", "qcow2"] | None, firmware: Firmware,
    ssh: bool, keep: bool, accel: accel.Wish, memory: int | None, cpus: int, template: str,
) -> None:  # fmt: skip
    """Boot IMAGE on this terminal, through an overlay; Ctrl-] ends it."""
    firmwares.check(firmware)
    found = boot_test.image_format(image)
    kept = Path.cwd() / f"{image.stem}.overlay.qcow2" if keep else None

    def tell(text: str) -> None:
        if not output.quiet:
            click.echo(text, err=True)

    progress = output.progress_sinks()
    try:
        with workspace() as work:
            acceleration = find_acceleration(accel, template, work, progress)
            run.run(
                image,
                acceleration,
                format=image_format or found,
                directory=work.path / "run",
                tell=tell,
                close=progress.close,
                firmware=firmware,
                memory=memory or run.MEMORY,
                cpus=cpus,
                ssh=ssh,
                kept=kept,
            )
    finally:
        progress.close()
    if kept:
        tell(f"kept: {kept}")

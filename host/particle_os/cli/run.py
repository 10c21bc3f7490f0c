"""The command `run`."""

from __future__ import annotations

from pathlib import Path

import click

from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, command, say, with_output
from particle_os.jobs import run_image
from particle_os.sandbox.acceleration import find_acceleration
from particle_os.system.workspace import workspace
from particle_os.vm import accel
from particle_os.vm import firmware as firmwares
from particle_os.vm.firmware import FIRMWARES, Firmware
from particle_os.vm.image_format import image_format


@command("run")
@click.argument("image", type=option.PathType(exists=True, dir_okay=False))
@option.FORMAT
@click.option("--firmware", type=click.Choice(FIRMWARES), default="bios", show_default=True,
              help="The firmware; uefi-secure is UEFI with Secure Boot.")  # fmt: skip
@click.option("--ssh", is_flag=True, help="Forward a port of 127.0.0.1 to the image's SSH server.")
@click.option(
    "--keep",
    is_flag=True,
    help="Keep the changes in an overlay in this directory; continue from an existing one.",
)
@option.ACCEL
@option.memory_option("1G")
@click.option("--cpus", type=click.IntRange(1, 64),
              help="The number of processors; 2 by default, and 1 without KVM.")  # fmt: skip
@option.HIDDEN_TEMPLATE
@with_output
def run_command(
    output: OutputStyle, image: Path, given_format: str | None, firmware: Firmware,
    ssh: bool, keep: bool, accel: accel.Mode, memory: int | None, cpus: int | None, template: str,
) -> None:  # fmt: skip
    """Boot IMAGE on this terminal, through an overlay; Ctrl-] ends it."""
    firmwares.check(firmware)
    found = image_format(image, given_format)
    run_image.check_terminal()
    kept = Path.cwd() / f"{image.stem}.overlay.qcow2" if keep else None

    def show(text: str) -> None:
        if not output.quiet:
            say(text, error=True)

    with output.progress_shown() as progress, workspace() as work:
        acceleration = find_acceleration(
            accel, template, work, log=progress.line, note=progress.note
        )
        run_image.run(
            image,
            acceleration,
            format=found,
            directory=work.path / "run",
            tell=show,
            close=progress.close,
            firmware=firmware,
            memory=memory or run_image.MEMORY,
            cpus=cpus,
            ssh=ssh,
            kept=kept,
        )
    if kept:
        show(f"kept: {kept}")

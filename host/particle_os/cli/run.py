"""The command `run`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from particle_os.boot import machine_choice
from particle_os.boot.machines.extras import Extras, read_user_data
from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, command, say, with_output
from particle_os.errors import UsageError
from particle_os.jobs import run_image
from particle_os.sandbox.acceleration import find_acceleration
from particle_os.system.workspace import workspace
from particle_os.vm import accel
from particle_os.vm.argv import Forward
from particle_os.vm.image_format import FORMATS, image_format

LAST_PORT = 65535


def _forwards(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[Forward, ...]:
    found: list[Forward] = []
    for value in values:
        ports = re.fullmatch(r"([0-9]{1,5}):([0-9]{1,5})", value)
        host, guest = (int(ports[1]), int(ports[2])) if ports else (0, 0)
        if not 0 < guest <= LAST_PORT or host > LAST_PORT:
            raise click.BadParameter(f"'{value}' is no pair HOST:GUEST of ports such as 8080:80")
        if any(guest == other.guest or 0 < host == other.host for other in found):
            raise click.BadParameter(f"'{value}' names a port that is already forwarded")
        found.append(Forward(guest, host))
    return tuple(found)


def _extras(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options about disks, user data and ports, and gathers them into `extras`."""

    @click.option("--disk", "disks", multiple=True, metavar="FILE",
                  type=option.PathType(exists=True, dir_okay=False),
                  help="Add a disk, whose file is not changed; repeatable.")  # fmt: skip
    @click.option("--disk-format", type=click.Choice(list(FORMATS)),
                  help="The format of every --disk; raw and qcow2 are detected.")  # fmt: skip
    @click.option("--user-data", metavar="FILE", type=option.PathType(exists=True, dir_okay=False),
                  help="Add a data source for cloud-init with this user data.")  # fmt: skip
    @click.option("--forward", "forwards", multiple=True, callback=_forwards, metavar="HOST:GUEST",
                  help="Forward a port of 127.0.0.1 to a TCP port of the image; HOST 0 is any free "
                       "port; repeatable.")  # fmt: skip
    @functools.wraps(function)
    def command(
        *, disks: tuple[Path, ...], disk_format: str | None, user_data: Path | None,
        forwards: tuple[Forward, ...], **arguments: Any,
    ) -> Any:  # fmt: skip
        if arguments["ssh"] and any(each.guest == run_image.SSH_PORT for each in forwards):
            raise UsageError("--ssh and --forward name the same port of the image")
        extras = Extras(
            [(path, image_format(path, disk_format)) for path in disks],
            None if user_data is None else read_user_data(user_data),
            forwards,
        )
        return function(extras=extras, **arguments)

    return command


@command("run")
@click.argument("image", type=option.ImageType())
@option.FORMAT
@option.IMAGE_ARCHITECTURE
@option.FIRMWARE
@click.option("--ssh", is_flag=True, help="Forward a port of 127.0.0.1 to the image's SSH server.")
@click.option("--keep", is_flag=True,
              help="Keep the changes in an overlay here, and continue from it.")  # fmt: skip
@option.ACCEL
@option.memory_option("1G")
@click.option("--cpus", type=click.IntRange(1, 64),
              help="The number of processors; 2 by default, and 1 without KVM.")  # fmt: skip
@option.HIDDEN_TEMPLATE
@with_output
@_extras
def run_command(
    output: OutputStyle, image: Path, given_format: str | None,
    wanted_architecture: option.Architecture | None,
    firmware: option.Firmware | None, ssh: bool, keep: bool, accel: accel.Mode, memory: int | None,
    cpus: int | None, template: str | None, extras: Extras,
) -> None:  # fmt: skip
    """Boot IMAGE on this terminal, through an overlay; Ctrl-] ends it."""
    found = image_format(image, given_format)
    run_image.check_terminal()
    kept = Path.cwd() / f"{image.stem}.overlay.qcow2" if keep else None

    def show(text: str) -> None:
        if not output.quiet:
            say(text, error=True)

    with output.progress_shown() as progress, workspace() as work:
        log, note = progress.line, progress.note
        architecture = machine_choice.architecture_of(wanted_architecture, image, found, note)
        chosen = machine_choice.checked(firmware, image, found, architecture, note)
        run_image.run(
            image,
            find_acceleration(accel, template, work, architecture, log=log, note=note),
            format=found,
            directory=work.path / "run",
            tell=show,
            close=progress.close,
            firmware=chosen,
            memory=memory or run_image.MEMORY,
            cpus=cpus,
            ssh=ssh,
            kept=kept,
            extras=extras,
        )
    if kept:
        show(f"kept: {kept}")

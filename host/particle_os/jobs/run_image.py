"""Runs an image on the user's terminal; an overlay receives all changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from particle_os.boot.machines.extras import NOTHING, Extras
from particle_os.errors import UsageError
from particle_os.system import terminal
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate
from particle_os.vm import accel
from particle_os.vm import firmware as firmwares
from particle_os.vm import overlay as overlays
from particle_os.vm.accel import Acceleration, Processors
from particle_os.vm.argv import MIB, Disk, ImageFormat, MachineSpec, StandaloneImage
from particle_os.vm.console import ConsoleLog
from particle_os.vm.firmware import Firmware
from particle_os.vm.machine import Machine, running

MEMORY = 1024 * MIB
START_SECONDS = 30.0
SSH_PORT = 22


def check_terminal() -> None:
    """Raises UsageError unless standard input and output are a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "an image runs on a terminal, but standard input or output is not a terminal",
            hint="Use 'particle-os boot-test' to see whether the image boots.",
        )


def run(
    image: Path,
    acceleration: Acceleration,
    *,
    format: ImageFormat,  # noqa: A002 - the field's own word
    directory: Path,
    tell: Callable[[str], None],
    close: Callable[[], None],
    firmware: Firmware = "bios",
    memory: int = MEMORY,
    cpus: int | None = None,
    ssh: bool = False,
    kept: Path | None = None,
    extras: Extras = NOTHING,
) -> None:
    """Boots `image` on the terminal until it powers off, or the user leaves.

    The image is never written. Changes go to an overlay in `directory`, which is private, or to the
    overlay `kept`, which a later run continues with. `memory` is in bytes. With `ssh`, a port of
    127.0.0.1 leads to the image's SSH server; `extras` has further ports, and there is no other
    network. `close` is called before the first message to `tell` and before the image takes the
    terminal. Raises UsageError without a terminal, and when `kept` exists but is no overlay over
    this image; InfrastructureError when QEMU fails.
    """
    check_terminal()
    directory.mkdir(mode=0o700)
    overlay = kept or directory / "overlay.qcow2"
    deadline = Deadline.after(START_SECONDS * acceleration.factor, "starting the machine")
    begin = _check_overlay if os.path.lexists(overlay) else overlays.make_overlay
    begin(overlay, image, format, deadline)
    processors = _processors(acceleration, cpus)
    spec = MachineSpec(
        accelerator=acceleration.name,
        architecture=acceleration.architecture,
        memory=memory,
        cpus=processors.count,
        x2apic=processors.x2apic,
        disks=(_image_disk(overlay, image, format), *extras.make_disks(directory, deadline)),
        uefi=firmwares.prepare(firmware, directory, acceleration.architecture),
        network="isolated-ssh" if ssh else "isolated",
        forwards=extras.forwards,
        reboots=True,
    )
    log = ConsoleLog(directory / "console.log", Gate())
    with running(spec, directory=directory, transcript=log, deadline=deadline) as machine:
        close()
        _show_ports(machine.monitor.forwards(deadline), tell)
        tell(f"changes go to {kept}" if kept else "changes are thrown away")
        tell(f"{terminal.ESCAPE_NAME} ends it")
        _converse(machine)


def _image_disk(overlay: Path, image: Path, image_format: ImageFormat) -> Disk:
    below = StandaloneImage(image.resolve(), image_format)
    return Disk(overlay, "qcow2", "image", backing=(), image=below)


def _show_ports(ports: Mapping[int, int], tell: Callable[[str], None]) -> None:
    for guest, host in ports.items():
        tell(f"port {guest} of the image: 127.0.0.1:{host}")
    if SSH_PORT in ports:
        tell(f"SSH server of the image: ssh -p {ports[SSH_PORT]} USER@127.0.0.1")


def _processors(acceleration: Acceleration, cpus: int | None) -> Processors:
    # On a busy host, emulation with more processors can panic the guest (session.LOST_TIMER).
    alone = 1 if acceleration.name == "tcg" else None
    return accel.processors(acceleration, cpus or alone)


def _check_overlay(path: Path, image: Path, image_format: ImageFormat, deadline: Deadline) -> None:
    """Raises UsageError unless `path` is an overlay over `image`, and newer than `image`.

    The check never opens the file that the overlay refers to: it could be any file of the host.
    """
    found = overlays.described(path, deadline)
    about = found.get("format-specific", {}).get("data", {})
    backing = found.get("backing-filename"), found.get("backing-filename-format")
    if backing != (str(image.resolve()), image_format) or {"data-file", "encrypt"} & about.keys():
        raise UsageError(
            f"{path} exists, but is no overlay over {image}",
            hint="Move it away, or run the image in another directory.",
        )
    if image.stat().st_mtime > path.stat().st_mtime:
        raise UsageError(
            f"{image} has changed since the last use of {path}, and no longer fits it",
            hint="Move the overlay away; it fits only the image that it was made with.",
        )


def _converse(machine: Machine) -> None:
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    with ExitStack() as stack:
        stack.callback(terminal.reset, sink)
        stack.enter_context(terminal.raw(source))
        machine.console.converse(source, sink, terminal.ESCAPE)

"""Runs an image on the user's terminal; what is done in it goes to an overlay."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from particle_os.errors import DeadlineExceeded, InfrastructureError, UsageError
from particle_os.system import process, terminal
from particle_os.system.deadline import Deadline
from particle_os.vm import accel
from particle_os.vm import firmware as firmwares
from particle_os.vm.accel import Acceleration, Processors
from particle_os.vm.argv import MIB, Disk, ImageFormat, MachineSpec
from particle_os.vm.firmware import Firmware
from particle_os.vm.machine import Machine, running
from particle_os.vm.overlay import make_overlay

MEMORY = 1024 * MIB
START_SECONDS = 30.0
DESCRIPTION_BYTES = 1 << 20
ESCAPE, ESCAPE_NAME = b"\x1d", "Ctrl-]"


def check_terminal() -> None:
    """Raises UsageError when this is no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "an image runs on a terminal, and standard input or output is none",
            hint="To see whether it boots, use 'particle-os boot-test'.",
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
) -> None:
    """Boots `image` on the terminal until it switches itself off, or the user leaves.

    The image is never written. Changes go to an overlay in `directory`, which is private, or to
    `kept`, which stays, and with which a later run goes on. `memory` is in bytes. With `ssh`, the
    image's SSH server is reached on a port of 127.0.0.1; nothing else is reached from or in it.
    `close` is called before anything is told, and the terminal is the image's. Raises UsageError
    without a terminal, and when `kept` is something else than an overlay over this image;
    InfrastructureError when QEMU fails.
    """
    check_terminal()
    directory.mkdir(mode=0o700)
    overlay = kept or directory / "overlay.qcow2"
    deadline = Deadline.after(START_SECONDS * acceleration.factor, "starting the machine")
    begin = _check_overlay if os.path.lexists(overlay) else make_overlay
    begin(overlay, image, format, deadline)
    processors = _processors(acceleration, cpus)
    spec = MachineSpec(
        accelerator=acceleration.name,
        memory=memory,
        cpus=processors.count,
        x2apic=processors.x2apic,
        disks=(Disk(overlay, "qcow2", "image"),),
        uefi=firmwares.prepare(firmware, directory),
        network="isolated-ssh" if ssh else "isolated",
        reboots=True,
    )
    transcript = directory / "console.log"
    with running(spec, directory=directory, transcript=transcript, deadline=deadline) as machine:
        close()
        if ssh:
            port = machine.monitor.forwarded_port(deadline)
            tell(f"its SSH server: ssh -p {port} USER@127.0.0.1")
        tell(f"changes go to {kept}" if kept else "changes are thrown away")
        tell(f"{ESCAPE_NAME} ends it")
        _converse(machine)


def _processors(acceleration: Acceleration, cpus: int | None) -> Processors:
    # A busy host can make the guest panic (see session.LOST_TIMER); here, nothing could hide that.
    alone = 1 if acceleration.name == "tcg" else None
    return accel.processors(acceleration, cpus or alone)


def _check_overlay(path: Path, image: Path, image_format: ImageFormat, deadline: Deadline) -> None:
    """Raises UsageError unless a file is an overlay over this very image, as it still is.

    What the file refers to is not opened: it could name any file of the host.
    """
    found = _described(path, deadline)
    about = found.get("format-specific", {}).get("data", {})
    backing = found.get("backing-filename"), found.get("backing-filename-format")
    if backing != (str(image.resolve()), image_format) or {"data-file", "encrypt"} & about.keys():
        raise UsageError(
            f"{path} exists already, and is no overlay over {image}",
            hint="Move it away, or run the image in another directory.",
        )
    if image.stat().st_mtime > path.stat().st_mtime:
        raise UsageError(
            f"{image} has changed since {path} was used last, and no longer fits",
            hint="Move the overlay away; it fits the image that it was made with only.",
        )


def _described(path: Path, deadline: Deadline) -> dict[str, Any]:
    """What qemu-img(1) tells of a qcow2 file; empty when it is none."""
    try:
        told = process.capture(
            ["qemu-img", "info", "--force-share", "-f", "qcow2", "--output=json", path],
            deadline=deadline.sooner(30, "looking at the overlay"),
            what="looking at the overlay",
            limit=DESCRIPTION_BYTES,
        )
    except DeadlineExceeded:
        raise
    except InfrastructureError:
        return {}
    found: dict[str, Any] = json.loads(told)
    return found


def _converse(machine: Machine) -> None:
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    with ExitStack() as stack:
        stack.callback(terminal.reset, sink)
        stack.enter_context(terminal.raw(source))
        machine.console.converse(source, sink, ESCAPE)

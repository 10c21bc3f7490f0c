"""Runs an image on the user's terminal; an overlay receives all changes."""

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
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate
from particle_os.vm import accel
from particle_os.vm import firmware as firmwares
from particle_os.vm.accel import Acceleration, Processors
from particle_os.vm.argv import MIB, Disk, ImageFormat, MachineSpec, StandaloneImage, image_options
from particle_os.vm.console import ConsoleLog
from particle_os.vm.firmware import Firmware
from particle_os.vm.machine import Machine, running
from particle_os.vm.overlay import make_overlay

MEMORY = 1024 * MIB
START_SECONDS = 30.0
DESCRIPTION_BYTES = 1 << 20
ESCAPE, ESCAPE_NAME = b"\x1d", "Ctrl-]"


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
) -> None:
    """Boots `image` on the terminal until it powers off, or the user leaves.

    The image is never written. Changes go to an overlay in `directory`, which is private, or to the
    overlay `kept`, which a later run continues with. `memory` is in bytes. With `ssh`, a port of
    127.0.0.1 leads to the image's SSH server; there is no other network. `close` is called before
    the first message to `tell` and before the image takes the terminal. Raises UsageError without a
    terminal, and when `kept` exists but is no overlay over this image; InfrastructureError when
    QEMU fails.
    """
    check_terminal()
    directory.mkdir(mode=0o700)
    overlay = kept or directory / "overlay.qcow2"
    deadline = Deadline.after(START_SECONDS * acceleration.factor, "starting the machine")
    begin = _check_overlay if os.path.lexists(overlay) else make_overlay
    begin(overlay, image, format, deadline)
    processors = _processors(acceleration, cpus)
    below = StandaloneImage(image.resolve(), format)
    spec = MachineSpec(
        accelerator=acceleration.name,
        memory=memory,
        cpus=processors.count,
        x2apic=processors.x2apic,
        disks=(Disk(overlay, "qcow2", "image", backing=(), image=below),),
        uefi=firmwares.prepare(firmware, directory),
        network="isolated-ssh" if ssh else "isolated",
        reboots=True,
    )
    transcript = ConsoleLog(directory / "console.log", Gate())
    with running(spec, directory=directory, transcript=transcript, deadline=deadline) as machine:
        close()
        if ssh:
            port = machine.monitor.forwarded_port(deadline)
            tell(f"SSH server of the image: ssh -p {port} USER@127.0.0.1")
        tell(f"changes go to {kept}" if kept else "changes are thrown away")
        tell(f"{ESCAPE_NAME} ends it")
        _converse(machine)


def _processors(acceleration: Acceleration, cpus: int | None) -> Processors:
    # On a busy host, emulation with more processors can panic the guest (session.LOST_TIMER).
    alone = 1 if acceleration.name == "tcg" else None
    return accel.processors(acceleration, cpus or alone)


def _check_overlay(path: Path, image: Path, image_format: ImageFormat, deadline: Deadline) -> None:
    """Raises UsageError unless `path` is an overlay over `image`, and newer than `image`.

    The check never opens the file that the overlay refers to: it could be any file of the host.
    """
    found = _described(path, deadline)
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


def _described(path: Path, deadline: Deadline) -> dict[str, Any]:
    """The output of `qemu-img info` about a qcow2 file; empty for any other file."""
    try:
        output = process.capture(
            ["qemu-img", "info", "--force-share", "--output=json", "--image-opts"]
            + [image_options(path, "qcow2")],
            deadline=deadline.sooner(30, "looking at the overlay"),
            what="looking at the overlay",
            limit=DESCRIPTION_BYTES,
            within=Confinement(reads=(path,)),
        )
    except DeadlineExceeded:
        raise
    except InfrastructureError:
        return {}
    found: dict[str, Any] = json.loads(output)
    return found


def _converse(machine: Machine) -> None:
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    with ExitStack() as stack:
        stack.callback(terminal.reset, sink)
        stack.enter_context(terminal.raw(source))
        machine.console.converse(source, sink, ESCAPE)

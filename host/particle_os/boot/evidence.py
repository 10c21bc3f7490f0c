"""The evidence of a boot test for people: console, screen, and a script that boots by hand."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from particle_os.boot.files import NAMES
from particle_os.errors import InfrastructureError
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate
from particle_os.system.regular_file import open_regular
from particle_os.vm import firmware as firmwares
from particle_os.vm.argv import Disk, MachineSpec, qemu_argv
from particle_os.vm.console import ConsoleLog, last_lines
from particle_os.vm.firmware import Firmware
from particle_os.vm.machine import Machine

CONSOLE, SCREEN, COMMAND = "console.log", "screen.png", "boot.sh"
SCREEN_SECONDS = 20.0
TAIL_BYTES, TAIL_LINES = 32768, 60
OVERLAY = "overlay.qcow2"
OTHERS_WRITE = 0o022
# With a shared terminal, QEMU ends on Ctrl-A X (QEMU's manual: system/mux-chardev).
SHARED = {"stdio,id=console,signal=off": "stdio,id=console,signal=off,mux=on"}
SCRIPT = """\
#!/bin/sh
# Boots the image as the boot test did, with its console on this terminal. Ctrl-A X ends QEMU.
# Changes to the disk are thrown away. The variable IMAGE names another image; its format comes from
# its ending, or from the variable FORMAT (QEMU's name). Arguments go to QEMU, such as: -display gtk
set -eu
found={image}
image=$(realpath -- "${{IMAGE:-$found}}")
image=${{image%.zst}}
if [ ! -e "$image" ] && [ -e "$image.zst" ]; then
	echo "The image is compressed. Unpack it first: zstd -d '$image.zst'" >&2
	exit 1
fi
format={format}
[ -z "${{IMAGE-}}" ] || case $image in
*.qcow2 | *.vmdk | *.vdi | *.vhdx) format=${{image##*.}} ;;
*.vhd) format=vpc ;;
*) format=raw ;;
esac
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd -- "$work"
{prepare}
{run} "$@"
"""


@dataclass(frozen=True)
class Evidence:
    """The place and the extent of the evidence of one boot.

    `image` is the image's path in boot.sh: absolute, or relative to the script. With `plot`, the
    system draws a plot of its boot, which takes half a minute under emulation. All text of the
    guest passes `gate`.
    """

    directory: Path
    image: Path
    plot: bool
    gate: Gate

    @property
    def console(self) -> Path:
        """The path of the console's transcript."""
        return self.directory / CONSOLE

    @property
    def console_log(self) -> ConsoleLog:
        """The console's transcript, for the machine that fills it."""
        return ConsoleLog(self.console, self.gate)

    def clear(self) -> None:
        """Makes the directory, and removes the evidence of an earlier test.

        Afterwards no other user can plant a link in it. Raises InfrastructureError when the
        directory is a link or another user's, or when others can replace it.
        """
        self.directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _check_parent(self.directory.parent)
        self.directory.mkdir(exist_ok=True)
        found = self.directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise InfrastructureError(
                f"{self.directory} is a link, or belongs to another user",
                hint="Choose another directory for the evidence, or remove it.",
            )
        self.directory.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS_WRITE)
        for name in (CONSOLE, SCREEN, COMMAND, *NAMES):
            (self.directory / name).unlink(missing_ok=True)

    def begin(self, spec: MachineSpec, image_format: str, firmware: Firmware) -> None:
        """Writes the script that boots the image by hand."""
        script = self.directory / COMMAND
        script.write_text(by_hand(spec, self.image, image_format, firmware))
        script.chmod(0o755)

    def console_tail(self) -> list[str]:
        """Returns the last lines of the console, safe to show; none without a console."""
        return console_tail(self.console)

    def take_screen(self, machine: Machine) -> None:
        """Keeps a PNG picture of the screen; does nothing when QEMU has ended."""
        deadline = Deadline.after(SCREEN_SECONDS, "a picture of the screen")
        try:
            machine.monitor.screendump(SCREEN, deadline)
        except InfrastructureError:
            return
        # The two directories may lie on different file systems.
        shutil.move(machine.directory / SCREEN, self.directory / SCREEN)


def _check_parent(parent: Path) -> None:
    """Raises InfrastructureError when other users can rename what is in a directory."""
    # The directory may be a link, which must not be another user's either.
    if any(is_open_to_others(found, os.geteuid()) for found in (parent.lstat(), parent.stat())):
        raise InfrastructureError(
            f"other users can write to {parent}, or it belongs to one",
            hint=f"Choose another directory for the evidence, or run 'chmod go-w {parent}'.",
        )


def is_open_to_others(found: os.stat_result, user: int) -> bool:
    """Whether others than `user` and root can replace the user's files in a directory."""
    if found.st_uid not in (user, 0):
        return True
    may_write = bool(found.st_mode & OTHERS_WRITE) and not stat.S_ISLNK(found.st_mode)
    return may_write and not found.st_mode & stat.S_ISVTX


def console_tail(place: Path) -> list[str]:
    """Returns the last lines of a transcript, safe to show; none without a transcript."""
    try:
        with open_regular(place, follow=False) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return last_lines(file.read(TAIL_BYTES), TAIL_LINES)
    except OSError:
        return []


def by_hand(spec: MachineSpec, image: Path, image_format: str, firmware: Firmware) -> str:
    """Returns a shell script that boots an image on a machine like `spec`.

    The machine has no credentials and no sockets, so the system is not questioned.
    """
    prepare = [f'qemu-img create -q -f qcow2 -F "${{FORMAT:-$format}}" -b "$image" {OVERLAY}']
    uefi = spec.uefi
    if uefi is not None:
        template = firmwares.required(firmware).variables
        prepare.append(shlex.join(["cp", "--", str(template), uefi.variables.name]))
        uefi = replace(uefi, variables=Path(uefi.variables.name))
    plain = replace(
        spec,
        disks=(Disk(Path(OVERLAY), "qcow2", "image"),),
        uefi=uefi,
        credentials={},
        probe_socket=None,
        firmware_socket=None,
    )
    argv = [SHARED.get(argument, argument) for argument in qemu_argv(plain)]
    place = shlex.quote(str(image))
    return SCRIPT.format(
        image=place if image.is_absolute() else f'$(dirname -- "$0")/{place}',
        format=image_format,
        prepare="\n".join(prepare),
        run=shlex.join(argv),
    )

"""The evidence of a boot test for people: console, screen, and a script that boots by hand."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from particle_os.architecture import MachineFacts
from particle_os.boot.files import NAMES
from particle_os.boot.machines.extras import SEED
from particle_os.boot.observation import screen
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
SHARED = {"stdio,id=console,signal=off": "stdio,id=console,signal=off,mux=on,logfile=console.log"}
# A monitor that reads its commands from a file.
MONITOR = ("-chardev", "file,id=monitor,path=monitor.out,input-path=monitor.in",
           "-mon", "chardev=monitor,mode=readline")  # fmt: skip
TPM = "swtpm socket --tpm2 --tpmstate dir=. --ctrl type=unixio,path=tpm.sock --terminate --daemon"
# A Linux that remaps interrupts panics when a busy host makes it miss ticks early in its start.
LOST_TIMER = "timer doesn't work through Interrupt-remapped IO-APIC"
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
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd -- "$work"
{prepare}
# QEMU's monitor reads this question, and its answer has the ports that the kernel chose.
echo 'info usernet' >monitor.in
show_ports() {{
	while ! grep -qs HOST_FORWARD monitor.out; do
		[ -d "$work" ] || return
		sleep 0.2
	done
	awk '/HOST_FORWARD/ {{ print "port " $6 " of the image: " $3 ":" $4 }}' monitor.out
}}
start() {{
	rm -f monitor.out console.log
	show_ports &
	shown=$!
	status=0
	case $processors in
	1) {one} "$@" || status=$? ;;
	*) {several} "$@" || status=$? ;;
	esac
	kill "$shown" 2>/dev/null || :
}}
for processors in {processors}; do
	{tpm}
	start "$@"
	# When QEMU emulates several processors, it may abort, or a busy host may make it lose ticks.
	if [ "$status" -ne 134 ] && ! grep -qs "{lost}" console.log; then break; fi
	echo "The emulation has failed, not the image. Another start has one processor." >&2
done
exit "$status"
"""


@dataclass(frozen=True)
class Evidence:
    """The place and the extent of the evidence of one boot.

    `image` is the image's path in boot.sh: absolute, or relative to the script. With None, the disk
    is not kept, and there is no script. With `plot`, the
    system draws a plot of its boot, which takes half a minute under emulation. All text of the
    guest passes `gate`.
    """

    directory: Path
    image: Path | None
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
        for name in (CONSOLE, SCREEN, COMMAND, SEED, *NAMES):
            (self.directory / name).unlink(missing_ok=True)

    def begin(self, spec: MachineSpec, image_format: str, firmware: Firmware) -> None:
        """Writes the script that boots the image by hand."""
        if self.image is None:
            return
        for disk in _others(spec):
            shutil.copyfile(disk.path, self.directory / disk.path.name)
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

    def screen_lines(self, machine: Machine, vm: MachineFacts) -> list[str]:
        """Returns the lines of the screen in text mode, safe to show; none in graphics mode."""
        return self.gate.lines(screen.lines(machine, vm))


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
        template = firmwares.required(firmware, spec.architecture).variables
        prepare.append(shlex.join(["cp", "--", str(template), uefi.variables.name]))
        uefi = replace(uefi, variables=Path(uefi.variables.name))
    others = [replace(disk, path=Path(disk.path.name)) for disk in _others(spec)]
    prepare += [f'cp -- "$here"/{shlex.quote(disk.path.name)} .' for disk in others]
    plain = replace(
        spec,
        disks=(Disk(Path(OVERLAY), "qcow2", "image"), *others),
        uefi=uefi,
        credentials={},
        probe_socket=None,
        firmware_socket=None,
    )
    place = shlex.quote(str(image))
    return SCRIPT.format(
        image=place if image.is_absolute() else f'$(dirname -- "$0")/{place}',
        format=image_format,
        prepare="\n".join(prepare),
        several=_command(plain),
        one=_command(replace(plain, cpus=1, x2apic=False)),
        processors=f"{spec.cpus} 1 1" if spec.x2apic else spec.cpus,
        tpm=TPM if spec.hardware.tpm else ":",
        lost=LOST_TIMER,
    )


def _command(spec: MachineSpec) -> str:
    argv = [SHARED.get(argument, argument) for argument in qemu_argv(spec)]
    return shlex.join([*argv, *MONITOR])


def _others(spec: MachineSpec) -> list[Disk]:
    """The disks beside the image's."""
    return [disk for disk in spec.disks[1:] if isinstance(disk, Disk)]

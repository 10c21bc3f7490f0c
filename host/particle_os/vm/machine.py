"""A running virtual machine: QEMU, its console, and its monitor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from particle_os.errors import VmError
from particle_os.system.confinement import GIB, Confinement, Tcp
from particle_os.system.deadline import Deadline
from particle_os.system.interrupt import held_back
from particle_os.vm import smbios
from particle_os.vm.argv import QMP_SOCKET, Disk, MachineSpec, qemu_argv
from particle_os.vm.capture import Capture, capturing
from particle_os.vm.console import Console, ConsoleLog
from particle_os.vm.devices.tpm import running_tpm
from particle_os.vm.monitor import Monitor
from particle_os.vm.traffic import Traffic

__all__ = ["ConsoleLog", "Machine", "running"]

# QEMU's own memory beside the guest's: the code that it translates, and buffers.
OVERHEAD = 8 * GIB
KVM = Path("/dev/kvm")
# A busy host needs many seconds for QEMU's libraries.
QEMU_SECONDS = 120.0


def confinement(spec: MachineSpec, directory: Path) -> Confinement:
    """The files and the network that QEMU needs to run the machine."""
    disks = [disk for disk in spec.disks if isinstance(disk, Disk)]
    reads = [disk.path for disk in disks if disk.read_only]
    reads += [path for disk in disks for path in disk.backing or ()]
    reads += [disk.image.path for disk in disks if disk.image is not None]
    if (direct := spec.direct_boot) is not None:
        reads += [direct.kernel, direct.initrd]
    if spec.uefi is not None:
        reads.append(spec.uefi.code)
    writes = [directory, *(disk.path for disk in disks if not disk.read_only)]
    writes += [KVM] if spec.accelerator == "kvm" else []
    tcp: Tcp = "any" if spec.network == "two-cards" else "none"
    if spec.forwards or spec.network == "isolated-ssh":
        tcp = "ephemeral"
    listens = tuple(forward.host for forward in spec.forwards if forward.host)
    return Confinement(
        # QEMU works in its directory, and its paths may be relative to it.
        reads=tuple(directory / path for path in reads),
        writes=tuple(directory / path for path in writes),
        tcp=tcp,
        listens=listens,
        memory=spec.memory + OVERHEAD,
    )


class Machine:
    """One QEMU process; use `running`."""

    def __init__(
        self,
        console: Console,
        monitor: Monitor,
        directory: Path,
        capture: Capture | None,
    ) -> None:
        self.console = console
        self.monitor = monitor
        self.directory = directory
        self._capture = capture

    def take_traffic(self) -> Traffic:
        """The hosts that the guest has reached through the card `OUTSIDE` since the last call.

        The cable is out, or the machine has ended.
        """
        assert self._capture is not None, "the machine has no such card"
        return self._capture.take()


@contextmanager
def running(
    spec: MachineSpec, *, directory: Path, transcript: ConsoleLog, deadline: Deadline
) -> Iterator[Machine]:
    """Runs the machine until the context ends; QEMU never outlives the context.

    `directory` is private to this machine and holds its sockets.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    smbios.write(spec.credentials, directory)
    with ExitStack() as stack:
        capture = None
        if spec.network == "two-cards":
            capture = stack.enter_context(capturing(directory))
        if spec.hardware.tpm:
            stack.enter_context(running_tpm(directory))
        with held_back():
            console = Console(
                qemu_argv(spec),
                directory=directory,
                transcript=transcript,
                within=confinement(spec, directory),
            )
            stack.callback(console.close)
        try:
            starting = deadline.sooner(QEMU_SECONDS, "starting QEMU")
            monitor = Monitor(directory, QMP_SOCKET, starting, console.is_alive)
        except VmError as error:
            if not console.is_alive():
                # QEMU's own error is on the console; this wait raises an error with that tail.
                console.expect("(?!)", deadline.sooner(5, "QEMU's last words"))
            raise error
        stack.enter_context(monitor)
        yield Machine(console, monitor, directory, capture)

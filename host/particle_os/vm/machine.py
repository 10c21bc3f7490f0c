"""A running virtual machine: QEMU, its console, and its monitor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from particle_os.errors import VmError
from particle_os.system.deadline import Deadline
from particle_os.system.interrupt import held_back
from particle_os.vm import smbios
from particle_os.vm.argv import QMP_SOCKET, MachineSpec, qemu_argv
from particle_os.vm.console import Console, ConsoleLog
from particle_os.vm.monitor import Monitor

__all__ = ["ConsoleLog", "Machine", "running"]


class Machine:
    """One QEMU process; use `running`."""

    def __init__(self, console: Console, monitor: Monitor, directory: Path) -> None:
        self.console = console
        self.monitor = monitor
        self.directory = directory


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
        with held_back():
            console = Console(qemu_argv(spec), directory=directory, transcript=transcript)
            stack.callback(console.close)
        try:
            starting = deadline.sooner(20, "starting QEMU")
            monitor = Monitor(directory, QMP_SOCKET, starting, console.is_alive)
        except VmError as error:
            if not console.is_alive():
                # QEMU's own error is on the console; this wait raises an error with that tail.
                console.expect("(?!)", deadline.sooner(5, "QEMU's last words"))
            raise error
        stack.enter_context(monitor)
        yield Machine(console, monitor, directory)

"""Whether the kernel of a booting machine has used its disk: a kernel without a driver has not."""

from __future__ import annotations

from collections.abc import Callable

from particle_os.boot.observation.verdict import Outcome
from particle_os.errors import InfrastructureError
from particle_os.system.deadline import Deadline
from particle_os.vm.devices.hardware import DISKS, DiskBus
from particle_os.vm.machine import Machine

MONITOR_SECONDS = 10.0


class DiskUse:
    """Counts the operations of a kernel on the disks; `phase` takes the phases of the boot."""

    def __init__(self, machine: Machine, on_phase: Callable[[str, float], None]) -> None:
        self._machine = machine
        self._on_phase = on_phase
        self._before_kernel: int | None = None

    def phase(self, name: str, seconds: float) -> None:
        """Notes what firmware and boot loader have done on the disks when a kernel runs."""
        if name == "kernel":
            self._before_kernel = self._operations()
        self._on_phase(name, seconds)

    def explain(self, outcome: Outcome, disk: DiskBus) -> Outcome:
        """Adds the missing device to the outcome of a kernel that found no root file system."""
        status, message = outcome
        if status != "root-not-found" or self._before_kernel is None:
            return outcome
        if self._operations() != self._before_kernel:
            return outcome
        driver = f"it seems to lack the driver of {DISKS[disk]}"
        return status, f"{message}; the kernel has read nothing from the disk: {driver}"

    def _operations(self) -> int | None:
        deadline = Deadline.after(MONITOR_SECONDS, "QEMU's monitor")
        try:
            return self._machine.monitor.disk_operations(deadline)
        except InfrastructureError:
            return None

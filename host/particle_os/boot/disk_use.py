"""Explains failures by the disk: the kernel has not used it, or it holds nothing that starts."""

from __future__ import annotations

from collections.abc import Callable

from particle_os.boot import contents
from particle_os.boot.observation.verdict import Outcome
from particle_os.boot.request import BootRequest
from particle_os.errors import InfrastructureError
from particle_os.system.deadline import Deadline
from particle_os.vm.devices.hardware import DISKS
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

    def explain(self, outcome: Outcome, request: BootRequest) -> Outcome:
        """Adds the missing device, or the content of the image, to the outcome of a boot."""
        status, message = outcome
        if status == "root-not-found" and self._is_unused():
            driver = f"it seems to lack the driver of {DISKS[request.variant.hardware.disk]}"
            return status, f"{message}; the kernel has read nothing from the disk: {driver}"
        firmware = request.variant.firmware
        directory = self._machine.directory
        return contents.explain(outcome, request.image, request.format, directory, firmware)

    def _is_unused(self) -> bool:
        """Whether the kernel has certainly not used its disk, as one without a driver."""
        return self._before_kernel is not None and self._operations() == self._before_kernel

    def _operations(self) -> int | None:
        deadline = Deadline.after(MONITOR_SECONDS, "QEMU's monitor")
        try:
            return self._machine.monitor.disk_operations(deadline)
        except InfrastructureError:
            return None

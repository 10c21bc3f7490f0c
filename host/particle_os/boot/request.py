"""What is to be booted, and on which machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_os.boot import outside, probe
from particle_os.boot.evidence import Evidence
from particle_os.errors import UsageError
from particle_os.recipe.checks.base import QUESTION_SECONDS
from particle_os.recipe.checks.contents import CommandCheck
from particle_os.recipe.checks.kinds import Check
from particle_os.recipe.checks.system import MemoryCheck, RebootCheck
from particle_os.vm import firmware as firmwares
from particle_os.vm.accel import Acceleration, Processors
from particle_os.vm.argv import MIB, Disk, ImageFormat, MachineSpec
from particle_os.vm.firmware import Firmware

MEMORY = 1024 * MIB
# Longer than systemd waits for a missing disk (90 s), and twice that under emulation.
TIMEOUT_SECONDS = {"kvm": 120.0, "tcg": 240.0}
PROBE_SOCKET, FIRMWARE_SOCKET = "probe.sock", "firmware.sock"


@dataclass(frozen=True)
class BootRequest:
    """One image, and how it is booted; `memory` in bytes, `seconds` for each boot."""

    image: Path
    format: ImageFormat
    firmware: Firmware
    acceleration: Acceleration
    processors: Processors
    evidence: Evidence
    checks: Sequence[Check]
    memory: int
    seconds: float
    on_phase: Callable[[str, float], None]
    console_only: bool

    @property
    def reboots(self) -> bool:
        """Whether a check asks for a second boot."""
        return any(isinstance(check, RebootCheck) for check in self.checks)

    def machine(self, overlay: Path, directory: Path, nonce: str) -> MachineSpec:
        """The machine that boots `overlay`, with a firmware of its own in `directory`.

        A system that is asked answers with `nonce`. Raises InfrastructureError when the firmware
        is not installed.
        """
        return MachineSpec(
            accelerator=self.acceleration.name,
            memory=self.memory,
            cpus=self.processors.count,
            x2apic=self.processors.x2apic,
            disks=(Disk(overlay, "qcow2", "image"),),
            uefi=firmwares.prepare(self.firmware, directory),
            network="isolated",
            forwards=outside.ports(self.checks),
            reboots=True,
            credentials={} if self.console_only else probe.credentials(nonce, self.checks),
            probe_socket=PROBE_SOCKET,
            firmware_socket=FIRMWARE_SOCKET,
        )


def memory_for(checks: Sequence[Check], given: int | None) -> int:
    """The machine's memory in bytes: the one `given`, the one that a check allows, or MEMORY.

    Raises UsageError when a check allows less than what is given.
    """
    limit = min((check.bytes for check in checks if isinstance(check, MemoryCheck)), default=None)
    if given is not None and limit is not None and given > limit:
        raise UsageError(
            f"the image is to boot in {limit // MIB} MiB, says a check: --memory is more than that"
        )
    return given or limit or MEMORY


def seconds_for(checks: Sequence[Check], acceleration: Acceleration) -> float:
    """The seconds that one boot may take: commands may take longer than other checks."""
    commands = [check.timeout for check in checks if isinstance(check, CommandCheck)]
    longer = sum(max(0, seconds - QUESTION_SECONDS) for seconds in commands)
    return TIMEOUT_SECONDS[acceleration.name] + longer

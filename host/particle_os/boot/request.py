"""The request for a boot test: the image, the machine, and the limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_os.boot import outside, probe
from particle_os.boot.evidence import Evidence
from particle_os.boot.variants import USUAL, Variant
from particle_os.errors import UsageError
from particle_os.recipe.checks.base import QUESTION_SECONDS
from particle_os.recipe.checks.contents import CommandCheck
from particle_os.recipe.checks.kinds import Check
from particle_os.recipe.checks.system import MemoryCheck, RebootCheck
from particle_os.vm import firmware as firmwares
from particle_os.vm.accel import Acceleration, Processors
from particle_os.vm.argv import MIB, Disk, Forward, ImageFormat, MachineSpec, StandaloneImage

MEMORY = 1024 * MIB
# systemd waits 90 s for a missing disk; the limit is longer, and doubled under emulation.
TIMEOUT_SECONDS = {"kvm": 120.0, "tcg": 240.0}
PROBE_SOCKET, FIRMWARE_SOCKET = "probe.sock", "firmware.sock"


@dataclass(frozen=True)
class BootRequest:
    """One image and its boot options; `memory` is in bytes, `seconds` limits each boot."""

    image: Path
    format: ImageFormat
    acceleration: Acceleration
    processors: Processors
    evidence: Evidence
    checks: Sequence[Check]
    memory: int
    seconds: float
    on_phase: Callable[[str, float], None]
    console_only: bool
    variant: Variant = USUAL
    # The tests of other frameworks: a directory for pytest-testinfra, the content of a goss file.
    testinfra: Path | None = None
    goss: bytes | None = None

    @property
    def reboots(self) -> bool:
        """Whether a check asks for a second boot."""
        return any(isinstance(check, RebootCheck) for check in self.checks)

    @property
    def has_suites(self) -> bool:
        """Whether there are tests of other frameworks."""
        return self.testinfra is not None or self.goss is not None

    def machine(self, overlay: Path, directory: Path, nonce: str) -> MachineSpec:
        """Returns the machine that boots `overlay`, with its own firmware files in `directory`.

        Unless `console_only` is set, the system is questioned and answers with `nonce`. Raises
        InfrastructureError when the firmware is not installed.
        """
        below = StandaloneImage(self.image.resolve(), self.format)
        return MachineSpec(
            accelerator=self.acceleration.name,
            memory=self.memory,
            cpus=self.processors.count,
            x2apic=self.processors.x2apic,
            disks=(
                Disk(overlay, "qcow2", "image", backing=(), image=below),
                *self.variant.more_disks(directory),
            ),
            uefi=firmwares.prepare(self.variant.firmware, directory),
            network="isolated",
            forwards=tuple(map(Forward, outside.ports(self.checks))),
            addresses=self.variant.addresses,
            hardware=self.variant.hardware,
            reboots=True,
            credentials={} if self.console_only else probe.credentials(nonce, self.checks),
            probe_socket=PROBE_SOCKET,
            firmware_socket=FIRMWARE_SOCKET,
        )


def memory_for(checks: Sequence[Check], given: int | None) -> int:
    """Returns the machine's memory in bytes: `given`, the smallest limit of a check, or MEMORY.

    Raises UsageError when `given` exceeds the limit of a check.
    """
    limit = min((check.bytes for check in checks if isinstance(check, MemoryCheck)), default=None)
    if given is not None and limit is not None and given > limit:
        raise UsageError(
            f"--memory exceeds the limit of a check: the image must boot in {limit // MIB} MiB"
        )
    return given or limit or MEMORY


def seconds_for(checks: Sequence[Check], acceleration: Acceleration) -> float:
    """Returns the time limit of one boot in seconds; slow command checks extend it."""
    commands = [check.timeout for check in checks if isinstance(check, CommandCheck)]
    longer = sum(max(0, seconds - QUESTION_SECONDS) for seconds in commands)
    return TIMEOUT_SECONDS[acceleration.name] + longer

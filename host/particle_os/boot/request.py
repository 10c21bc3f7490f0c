"""The request for a boot test: the image, the machine, and the limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_os.boot import outside, probe
from particle_os.boot.evidence import Evidence
from particle_os.boot.frameworks.image_shell import ImageShell
from particle_os.boot.machines.variants import USUAL, Variant
from particle_os.boot.observation.verdict import Observation, Outcome, UpdateStep, Verdict
from particle_os.boot.observation.watch import RESTARTS
from particle_os.recipe.checks.kinds import Check
from particle_os.recipe.checks.system import RebootCheck
from particle_os.vm import firmware as firmwares
from particle_os.vm.accel import Acceleration, Processors
from particle_os.vm.argv import Disk, Forward, ImageFormat, MachineSpec, StandaloneImage

# Work in a system that has passed; returns the outcome of a failure.
Errand = Callable[[ImageShell], Outcome | None]
PROBE_SOCKET, FIRMWARE_SOCKET = "probe.sock", "firmware.sock"


@dataclass(frozen=True)
class BootRequest:
    """One image and its boot options; `memory` is in bytes, `seconds` limits each boot.

    A boot passes only if all `checks` hold, and the tests of other frameworks pass. `evidence` is
    kept for every outcome. `on_phase` receives each phase and the seconds until it appeared,
    `on_line` the last line of the console. With `console_only`, the system is not questioned and a
    login prompt is enough.
    """

    image: Path
    format: ImageFormat
    acceleration: Acceleration
    processors: Processors
    evidence: Evidence
    checks: Sequence[Check]
    memory: int
    seconds: float
    on_phase: Callable[[str, float], None]
    on_line: Callable[[str], None]
    console_only: bool
    variant: Variant = USUAL
    # The tests of other frameworks: a directory for pytest-testinfra, the content of a goss file.
    testinfra: Path | None = None
    goss: bytes | None = None
    # Further disks, of an update.
    more_disks: tuple[Disk, ...] = ()
    # The boot's place in the test of an update, and the work there.
    step: UpdateStep | None = None
    errand: Errand | None = None
    most_restarts: int = RESTARTS

    @property
    def reboots(self) -> bool:
        """Whether a check asks for a second boot."""
        return any(isinstance(check, RebootCheck) for check in self.checks)

    def verdict(self, found: Observation) -> Verdict:
        """Returns the verdict, without the secrets of the build."""
        variant = self.variant
        return self.evidence.gate.hide(found.verdict(variant.firmware, variant.devices, self.step))

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
        architecture = self.acceleration.architecture
        asked = {} if self.console_only else probe.credentials(nonce, self.checks, architecture.vm)
        return MachineSpec(
            accelerator=self.acceleration.name,
            architecture=architecture,
            memory=self.memory,
            cpus=self.processors.count,
            x2apic=self.processors.x2apic,
            disks=(
                Disk(overlay, "qcow2", "image", backing=(), image=below),
                *self.variant.more_disks(directory),
                *self.more_disks,
            ),
            uefi=firmwares.prepare(self.variant.firmware, directory, architecture),
            network="isolated",
            forwards=tuple(map(Forward, outside.ports(self.checks))),
            addresses=self.variant.addresses,
            hardware=self.variant.hardware,
            reboots=True,
            credentials=asked,
            probe_socket=PROBE_SOCKET,
            firmware_socket=FIRMWARE_SOCKET,
        )

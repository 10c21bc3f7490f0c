"""The time limit of a boot, which no busy host uses up, and failures that such a host may cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from particle_os.boot.observation.verdict import BootStatus, Outcome
from particle_os.errors import InfrastructureError
from particle_os.system import process
from particle_os.system.deadline import Deadline
from particle_os.vm.machine import Machine

# At most so many times the limit are added to it, so that each boot ends.
MOST = 3
# A system has time limits of its own: systemd waits 90 s for a device or a service, initramfs-tools
# 30 s for the root. These failures prove nothing when the machine has waited for this share of the
# time: it had less than a quarter of what it needs on a host that has nothing else to do.
LATE: tuple[BootStatus, ...] = ("emergency-mode", "root-not-found", "units-failed")
MOST_WAITED = 0.75


@dataclass(frozen=True)
class TimeLimit(Deadline):
    """A deadline that moves by the seconds for which a machine has `waited` for a processor.

    A boot of 60 s takes four minutes on a host that has four things to do at once.
    """

    # A machine that has not started has waited for 0.0 s, which is float().
    waited: Callable[[], float] = float

    def of(self, machine: Machine) -> TimeLimit:
        """The same limit for a machine that QEMU has just started."""
        return replace(self, waited=lambda: waited(machine))

    @property
    def left(self) -> float:
        left = super().left
        return left if left > 0 else left + self._more()

    @property
    def limit(self) -> str:
        more = self._more()
        return super().limit + (f" and {more:.0f} s in which the host was busy" if more > 1 else "")

    def _more(self) -> float:
        return min(self.waited(), MOST * self.seconds)


def waited(machine: Machine) -> float:
    """The seconds for which the machine has waited for a processor.

    The threads of QEMU may wait at the same time, so the one that waited longest counts.
    """
    return max(process.waits(machine.console.pid), default=0.0)


def check_host(outcome: Outcome, waited: float, seconds: float) -> None:
    """Raises InfrastructureError for a failure that a busy host may have caused.

    `waited` is how long the machine has waited for a processor in the `seconds` since its start.
    """
    status, message = outcome
    if status in LATE and waited > MOST_WAITED * seconds:
        raise InfrastructureError(
            f"the host was too busy for a verdict: the machine has waited {waited:.0f} of "
            f"{seconds:.0f} s for a processor, and then {status}: {message}",
            hint="Boot the image again when the host has less to do.",
        )

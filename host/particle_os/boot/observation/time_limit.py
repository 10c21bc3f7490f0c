"""The time limit of a boot, which no busy host uses up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from particle_os.system import process
from particle_os.system.deadline import Deadline
from particle_os.vm.machine import Machine

# At most so many times the limit are added to it, so that each boot ends.
MOST = 3


@dataclass(frozen=True)
class TimeLimit(Deadline):
    """A deadline that moves by the seconds for which a machine has `waited` for a processor.

    A boot of 60 s takes four minutes on a host that has four things to do at once.
    """

    # A machine that has not started has waited for 0.0 s, which is float().
    waited: Callable[[], float] = float

    def of(self, machine: Machine) -> TimeLimit:
        """The same limit for a machine that QEMU has just started.

        The threads of QEMU may wait at the same time, so the one that waited longest counts.
        """
        return replace(self, waited=lambda: max(process.waits(machine.console.pid), default=0.0))

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

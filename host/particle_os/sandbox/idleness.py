"""Ends the wait for a VM that hangs, however slow a busy host makes the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from particle_os.errors import DeadlineExceeded
from particle_os.system.deadline import Deadline

# A VM is idle that wants less than BUSY_SECONDS of the processor within IDLE_SECONDS. A VM that
# starts wants all of it.
IDLE_SECONDS, BUSY_SECONDS = 120.0, 6.0
TICKS = os.sysconf("SC_CLK_TCK")
BUSY_HOST = (
    "The host is busy: run fewer programs beside the build. KVM (--accel kvm) needs a fraction of "
    "the time; 'particle-os doctor' says whether it works here."
)
HANGS = "The VM hangs. Run the command again; 'particle-os doctor' checks the host."


def used(pid: int) -> float:
    """The seconds of processor time that a process has used (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def waited(pid: int) -> float:
    """The seconds for which the threads of a process have waited for a processor.

    The kernel counts them in the second field of schedstat (Documentation/scheduler/sched-stats),
    unless it was built without.
    """
    total = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):
            total += int(thread.read_text().split()[1])
    return total / 1e9


@dataclass(frozen=True, slots=True)
class _Glance:
    at: float
    wanted: float


class Idleness:
    """Watches the process `pid`; `used` and `waited` return its seconds."""

    def __init__(
        self,
        pid: int,
        used: Callable[[int], float] = used,
        waited: Callable[[int], float] = waited,
    ) -> None:
        self._pid = pid
        self._used = used
        self._waited = waited
        self._busy = self._look()

    def _look(self) -> _Glance:
        return _Glance(time.monotonic(), self._used(self._pid) + self._waited(self._pid))

    @property
    def processor_seconds(self) -> float:
        return self._used(self._pid)

    @property
    def seconds(self) -> float:
        """For how long the process has wanted next to no processor time."""
        look = self._look()
        # The sum falls when a thread ends.
        if abs(look.wanted - self._busy.wanted) >= BUSY_SECONDS:
            self._busy = look
        return look.at - self._busy.at


@dataclass(frozen=True)
class UnlessIdle(Deadline):
    """A deadline that also passes when the watched process has been idle for IDLE_SECONDS."""

    idleness: Idleness

    @classmethod
    def of(cls, deadline: Deadline, idleness: Idleness) -> UnlessIdle:
        return cls(deadline.what, deadline.seconds, deadline.at, idleness)

    def remaining(self) -> float:
        try:
            left = super().remaining()
        except DeadlineExceeded as error:
            raise DeadlineExceeded(f"{error.brief}; {self._had()}", hint=BUSY_HOST) from None
        if (idle := self.idleness.seconds) >= IDLE_SECONDS:
            message = f"{self.what}: the VM was idle for {idle:.0f} s; {self._had()}"
            raise DeadlineExceeded(message, hint=HANGS)
        return left

    def _had(self) -> str:
        return f"QEMU has had {self.idleness.processor_seconds:.0f} s of processor time"

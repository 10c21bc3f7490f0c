"""Ends the wait for a VM that hangs, however slow a busy host makes the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from particle_os.errors import DeadlineExceeded
from particle_os.system import process
from particle_os.system.deadline import Deadline

# A VM is idle that wants less than BUSY_SECONDS of the processor within IDLE_SECONDS. A VM that
# starts wants all of it.
IDLE_SECONDS, BUSY_SECONDS = 120.0, 6.0
BUSY_HOST = (
    "The host is busy: run fewer programs beside the build. KVM (--accel kvm) needs a fraction of "
    "the time; 'particle-os doctor' says whether it works here."
)
HANGS = "The VM hangs. Run the command again; 'particle-os doctor' checks the host."


@dataclass(frozen=True, slots=True)
class _Glance:
    at: float
    wanted: float


class Idleness:
    """Watches the process `pid`; `used` and `waited` return its seconds."""

    def __init__(
        self,
        pid: int,
        used: Callable[[int], float] = process.processor_seconds,
        waited: Callable[[int], float] = process.waited,
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

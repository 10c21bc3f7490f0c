"""The end of one attempt to build an image on a farm."""

from __future__ import annotations

from dataclasses import dataclass

from particle_os.errors import EXIT_INFRASTRUCTURE, InfrastructureError, ParticleError
from particle_os.fleet.build_end import BuildEnd
from particle_os.fleet.build_process import Ended
from particle_os.fleet.farm.client.connection import Answered
from particle_os.fleet.order import Order

MALFORMED = "a worker has given an answer that is none of this version of particle-os"


@dataclass(frozen=True)
class Attempt:
    """The end of a build, or the `fault` that has ended the attempt.

    `is_loss` is true when something has killed the process that keeps the build.
    """

    ended: Ended | None = None
    fault: str | None = None
    is_loss: bool = False

    @classmethod
    def of(cls, message: Answered) -> Attempt:
        """Reads what a worker has answered, which may be anything."""
        if message.answer is None:
            return cls(fault=message.fault)
        if isinstance(message.answer, dict) and message.answer.get("code", 0) is None:
            return cls(fault=str(message.answer.get("fault"))[:1000], is_loss=True)
        try:
            return cls(Ended.of(message.answer))
        except ValueError:
            return cls(fault=MALFORMED)

    @property
    def is_spoilt(self) -> bool:
        """Whether the machine may be to blame."""
        return self.ended is not None and self.ended.is_spoilt

    @property
    def why(self) -> str:
        """The reason of a bad end."""
        if self.ended is None:
            return str(self.fault)
        return (self.ended.error or {}).get("error") or f"status {self.ended.code}"

    def end(self, order: Order) -> BuildEnd:
        """The end of the build, if this attempt is the last one."""
        if self.ended is not None:
            return BuildEnd.of(order, self.ended)
        return lost(order, InfrastructureError(f"the farm has lost the build: {self.fault}"))


def lost(order: Order, error: ParticleError) -> BuildEnd:
    """The end of a build that the farm has not finished."""
    return BuildEnd(order, EXIT_INFRASTRUCTURE, error=error)

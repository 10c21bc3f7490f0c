"""The events of QEMU's monitor that belong to a boot (QEMU's QMP reference: RESET, SHUTDOWN)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from particle_os.boot.observation.signs import RESETS_AGAIN, STARTS


def is_reset(event: dict[str, Any]) -> bool:
    """Whether the guest has reset the machine."""
    return event["event"] == "RESET" and bool(event["data"].get("guest"))


def shut_itself_down(events: list[dict[str, Any]]) -> bool:
    """Whether the guest ended QEMU; without a SHUTDOWN event, QEMU's status 0 is enough."""
    shutdowns = [event["data"] for event in events if event["event"] == "SHUTDOWN"]
    return all(data.get("guest") for data in shutdowns)


class Resets:
    """The resets of a machine by its guest."""

    def __init__(self) -> None:
        self._events = 0

    def restarts(self, events: Iterable[dict[str, Any]], firmware: bytes, new_starts: int) -> int:
        """Returns the number of restarts so far, given the new events of the monitor.

        `firmware` is the output of the firmware's debug port. The test itself has restarted the
        machine `new_starts` times.
        """
        self._events += sum(map(is_reset, events))
        # A system that only jumps to the firmware's start causes no event. The firmware then resets
        # the machine, which causes one, and may report the reset before QEMU does.
        starts = firmware.count(STARTS) - 1 - new_starts
        return max(self._events - firmware.count(RESETS_AGAIN), starts)

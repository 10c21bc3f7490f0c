"""The events of QEMU's monitor that belong to a boot (QEMU's QMP reference: RESET, SHUTDOWN)."""

from __future__ import annotations

from typing import Any


def is_reset(event: dict[str, Any]) -> bool:
    """Whether the guest has reset the machine."""
    return event["event"] == "RESET" and bool(event["data"].get("guest"))


def shut_itself_down(events: list[dict[str, Any]]) -> bool:
    """Whether the guest ended QEMU; without a SHUTDOWN event, QEMU's status 0 is enough."""
    shutdowns = [event["data"] for event in events if event["event"] == "SHUTDOWN"]
    return all(data.get("guest") for data in shutdowns)

"""The network card of the VM that leads outside; the host takes its cable out and puts it in."""

from __future__ import annotations

import time
from pathlib import Path

from particle_agent.errors import EnvironmentFailed

# Documentation/ABI/testing/sysfs-class-net in Linux. guest/init.sh configures the card.
STATE = Path("/sys/class/net/eth1/operstate")
CABLE_SECONDS = 30.0


def wait_for_cable(state: Path = STATE, seconds: float = CABLE_SECONDS) -> None:
    """Returns when the kernel sends packets through the card.

    The kernel drops them until it has noticed that the cable is back. Raises EnvironmentFailed
    after this number of seconds.
    """
    deadline = time.monotonic() + seconds
    while state.read_text() != "up\n":
        if time.monotonic() > deadline:
            raise EnvironmentFailed(f"the VM's network card has no link after {seconds:.0f} s")
        time.sleep(0.01)

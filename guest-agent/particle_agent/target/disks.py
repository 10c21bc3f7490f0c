"""The disks that the host gives to the VM, by their serial numbers."""

from __future__ import annotations

import stat
import time
from pathlib import Path

from particle_agent.errors import EnvironmentFailed


def is_attached(serial: str) -> bool:
    """Whether the VM has a disk with this serial number: the host wants what the disk is for."""
    return any(place.read_text().strip() == serial for place in Path("/sys/block").glob("*/serial"))


def wait_for_disk(serial: str, size: int, timeout: float) -> Path:
    """Waits for the disk with this serial number and size in bytes (0: any). Returns its device.

    Raises EnvironmentFailed after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for place in Path("/sys/block").iterdir():
            try:
                found = (place / "serial").read_text().strip() == serial
                sectors = int((place / "size").read_text())
            except OSError:
                continue
            device = Path("/dev") / place.name
            fits = found and size in (0, sectors * 512)
            if fits and stat.S_ISBLK(device.stat().st_mode):
                return device
        time.sleep(0.05)
    raise EnvironmentFailed(
        f"the disk '{serial}' of {size} bytes did not appear within {timeout:.0f} s"
    )

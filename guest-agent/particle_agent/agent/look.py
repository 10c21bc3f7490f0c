"""Verifies and inspects disks, and inspects the finished system."""

from __future__ import annotations

import subprocess
import time

from particle_agent import verification
from particle_agent.agent.channel import Channel
from particle_agent.agent.scratch import (
    ROOT,
    mount_scratch,
)
from particle_agent.contract import wire
from particle_agent.contract.inspection import SERIAL, Inspection
from particle_agent.disk.reading import Tree
from particle_agent.ostree.reading import systems
from particle_agent.target.disks import wait_for_disk
from particle_agent.verification import inspection

# The serial number of the disk that the last stage writes.
OUTPUT = "output"


def verify(channel: Channel, serial: str) -> None:
    """Verifies the disk with this serial number and sends the findings to the host.

    The disk becomes read-only.
    """
    device = wait_for_disk(serial, 0, 30.0)
    channel.output("+ verify the disk")
    started = time.monotonic()
    # The kernel's cache of the whole disk does not see what was written through its partitions.
    argv = ["blockdev", "--flushbufs", "--setro", str(device)]
    subprocess.run(argv, check=True, timeout=60)
    verification.of_disk(device, channel.send, fresh=serial == OUTPUT)
    channel.send(wire.Verified(seconds=round(time.monotonic() - started, 3)))


def inspect(*, disk: bool) -> Inspection:
    """Inspects the disk with the serial number `SERIAL`, or the target."""
    if disk:
        return inspection.of_disk(wait_for_disk(SERIAL, 0, 30.0))
    mount_scratch()
    tree = Tree(ROOT)
    system = inspection.of_system(next(systems(tree, ""), tree))
    return Inspection(size=0, table=None, partitions=(), boot_loaders=(), system=system)

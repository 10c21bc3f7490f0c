"""Looks at disks and at the finished system."""

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
from particle_agent.target.target import wait_for_disk
from particle_agent.verification import inspection

# The serial of the disk that the last stage writes.
OUTPUT = "output"


def verify(channel: Channel, serial: str) -> None:
    """Verifies the disk with this serial, which nobody writes from here on; tells what is wrong."""
    device = wait_for_disk(serial, 0, 30.0)
    channel.output("+ verify the disk")
    started = time.monotonic()
    # What was written to its partitions is not in the kernel's memory of the whole disk.
    argv = ["blockdev", "--flushbufs", "--setro", str(device)]
    subprocess.run(argv, check=True, timeout=60)
    verification.of_disk(device, channel.send)
    channel.send(wire.Verified(seconds=round(time.monotonic() - started, 3)))


def inspect(*, disk: bool) -> Inspection:
    """What is on the disk to be inspected, or else in the target."""
    if disk:
        return inspection.of_disk(wait_for_disk(SERIAL, 0, 30.0))
    mount_scratch()
    system = inspection.of_system(Tree(ROOT))
    return Inspection(size=0, table=None, partitions=(), boot_loaders=(), system=system)

"""The architectures of images and machines, as the agent's contract has them.

The folders that do not depend on the agent read the records here.
"""

from __future__ import annotations

from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.arm64 import ARM64
from particle_agent.contract.architectures.record import (
    Architecture,
    BootFirmware,
    BuildArchitecture,
    MachineFacts,
)
from particle_agent.contract.architectures.table import (
    ARCHITECTURES,
    native,
    of_uname,
)

__all__ = [
    "AMD64",
    "ARCHITECTURES",
    "ARM64",
    "Architecture",
    "BootFirmware",
    "BuildArchitecture",
    "MachineFacts",
    "native",
    "of_uname",
    "usual",
]


def usual() -> Architecture:
    """The architecture of machines that serve any image: this machine's own, if it is known."""
    return native() or AMD64

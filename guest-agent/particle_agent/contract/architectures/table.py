"""All architectures that images can be made for, by Debian's names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.arm64 import ARM64
from particle_agent.contract.architectures.record import Architecture

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {each.name: each for each in (AMD64, ARM64)}
)


def native() -> Architecture | None:
    """The architecture of this machine; None for one that no images are made for."""
    return of_uname(os.uname().machine)


def of_uname(machine: str) -> Architecture | None:
    """The architecture that uname(2) calls `machine`; None for an unknown one."""
    return next((each for each in ARCHITECTURES.values() if each.uname == machine), None)

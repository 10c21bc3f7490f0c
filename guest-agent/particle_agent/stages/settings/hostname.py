"""Stage hostname: the name of the system."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.contract.values import HostName
from particle_agent.stages.base import StageOptions
from particle_agent.system.hosts import hosts
from particle_agent.target.target import Target


@dataclass(frozen=True, kw_only=True)
class Hostname(StageOptions):
    """Sets the host name in /etc/hostname and /etc/hosts.

    Without this stage, a base without /etc/hostname gets the recipe's name.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["hostname"] = "hostname"
    hostname: HostName
    """The host name: short (`web1`) or fully qualified (`web1.example.org`)."""

    def __post_init__(self) -> None:
        # RFC 1123, 2.1: the last part of a name is not a number.
        if self.hostname.rpartition(".")[2].isdigit() and "." in self.hostname:
            raise ValueError("hostname: expected a name, found an address")

    def rewrites(self) -> Iterable[tuple[str, str]]:
        yield "/etc/hostname", "set the name in the option 'hostname' of the stage"

    def run(self, target: Target) -> None:
        target.write("/etc/hostname", f"{self.hostname}\n")
        target.write("/etc/hosts", hosts(target, self.hostname))

"""The name of the system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.contract.values import HostName
from particle_agent.stages.base import StageOptions
from particle_agent.system.hosts import hosts
from particle_agent.target.target import Target


@dataclass(frozen=True, kw_only=True)
class Hostname(StageOptions):
    """Names the system: /etc/hostname, and its own line in /etc/hosts.

    Without this stage the recipe's name is taken where the base has no /etc/hostname.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["hostname"] = "hostname"
    hostname: HostName
    """A name such as web1, or a full one such as web1.example.org."""

    def run(self, target: Target) -> None:
        target.write("/etc/hostname", f"{self.hostname}\n")
        target.write("/etc/hosts", hosts(target, self.hostname))

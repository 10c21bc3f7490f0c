"""The stages, one file each. `make generate` lists them in `registry`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol

from particle_agent.contract.architectures.record import Architecture
from particle_agent.contract.hosts import StageNetwork
from particle_agent.contract.needs import Need
from particle_agent.stages.base import Secret
from particle_agent.stages.registry import ALL_STAGES, RECIPE_STAGES, RecipeStage
from particle_agent.target.target import Target

__all__ = ["ALL_STAGES", "RECIPE_STAGES", "RecipeStage", "Stage"]


class Stage(Protocol):
    """The interface of every stage class, in addition to its options."""

    reads_network: ClassVar[bool]
    uses_name: ClassVar[bool]
    only_configures: ClassVar[bool]

    @property
    def label(self) -> str:
        """The stage's name in messages."""

    @property
    def timeout(self) -> int | None:
        """The time limit in seconds, if there is one."""

    @property
    def network(self) -> StageNetwork | None:
        """Anything but None cuts the stage off from the network."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that the stage may reach through the proxy."""

    @property
    def reaches_network(self) -> bool:
        """Whether the VM's network card has its cable while the stage runs."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets that the stage finds in /run/secrets."""

    def needs(self) -> Iterable[Need]:
        """Everything that the system must have when the stage runs, except for `boot_needs`."""

    def later_needs(self) -> Iterable[Need]:
        """Everything that the system must have after all stages."""

    def boot_needs(self, architecture: Architecture) -> Iterable[Need]:
        """The needs of an image that boots, which differ by architecture."""

    def may_bring(self, need: Need) -> bool:
        """Whether the stage may bring what `need` asks for."""

    def ahead(self, target: Target) -> None:
        """Start work while the stage before is still running; write to /run only."""

    def run(self, target: Target) -> None:
        """Do the work. Raises StageError when it cannot be done."""

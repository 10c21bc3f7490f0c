"""The stages, one file each. `make generate` lists them in `registry`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, Protocol

from particle_agent.contract.needs import Need
from particle_agent.stages.base import Secret
from particle_agent.stages.registry import ALL_STAGES, RECIPE_STAGES, RecipeStage
from particle_agent.target.target import Target

__all__ = ["ALL_STAGES", "RECIPE_STAGES", "RecipeStage", "Stage"]


class Stage(Protocol):
    """What every stage class offers besides its options."""

    reads_network: ClassVar[bool]
    uses_name: ClassVar[bool]
    only_configures: ClassVar[bool]

    @property
    def label(self) -> str:
        """What it is called in messages."""

    @property
    def timeout(self) -> int | None:
        """The seconds that it may take."""

    @property
    def network(self) -> Literal["none"] | None:
        """Whether it goes without a network."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What it finds in /run/secrets."""

    def needs(self) -> Iterable[Need]:
        """What the system must have when it runs."""

    def may_bring(self, need: Need) -> bool:
        """Whether the system may have that because of it."""

    def ahead(self, target: Target) -> None:
        """Does what of the work may be done beside the end of the stage before, in /run alone."""

    def run(self, target: Target) -> None:
        """Does the work; raises StageError when it cannot be done."""

"""The stages, one file each. A new one adds its file and one line to `RecipeStage`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, Protocol, get_args

from particle_agent.contract.needs import Need
from particle_agent.stages.accounts.groups import Groups
from particle_agent.stages.accounts.users import Users
from particle_agent.stages.base import Secret
from particle_agent.stages.contents.cleanup import Cleanup
from particle_agent.stages.contents.files import Files
from particle_agent.stages.contents.run import Run
from particle_agent.stages.output.export import Export
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.hostname import Hostname
from particle_agent.stages.settings.keyboard import Keyboard
from particle_agent.stages.settings.locale import Locale
from particle_agent.stages.settings.network import Network
from particle_agent.stages.settings.services import Services
from particle_agent.stages.settings.timezone import Timezone
from particle_agent.stages.software.apt import Apt
from particle_agent.stages.software.bootstrap import Bootstrap
from particle_agent.stages.software.kernel import Kernel
from particle_agent.stages.software.sources import Sources
from particle_agent.target.target import Target


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


RecipeStage = (
    Sources
    | Apt
    | Hostname
    | Locale
    | Keyboard
    | Timezone
    | Groups
    | Network
    | Kernel
    | Users
    | Files
    | Services
    | Run
    | Cleanup
    | Qemu
)
RECIPE_STAGES: tuple[type, ...] = get_args(RecipeStage)
# What a host may send: the stages of recipes, and those that only particle-os itself uses.
ALL_STAGES: tuple[type, ...] = (*RECIPE_STAGES, Bootstrap, Export)

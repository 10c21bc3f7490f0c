"""What every stage is made of: the options that all share, and what a stage may override."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from particle_agent.contract.needs import Need
from particle_agent.contract.options import (
    Architecture,
    Duration,
    HostPath,
    OneOrMore,
    Options,
    SecretName,
    StageName,
    VariableName,
)
from particle_agent.target.target import Target


@dataclass(frozen=True, kw_only=True)
class When(Options):
    """What must be so for a stage to be part of a build."""

    architecture: Annotated[tuple[Architecture, ...], OneOrMore()]
    """The Debian architecture of the images that it is for, or a list of them."""


@dataclass(frozen=True, kw_only=True)
class Secret(Options):
    """A value that a stage needs and nobody else is to see: from a file or the environment.

    While the stage runs, the system under construction has it in /run/secrets/NAME, in memory.
    """

    name: SecretName
    """What the stage calls it."""
    file: HostPath | None = None
    """A file on the host that holds it, relative to the recipe."""
    env: VariableName | None = None
    """A variable in the environment of particle-os that holds it."""

    def __post_init__(self) -> None:
        if (self.file is None) == (self.env is None):
            raise ValueError(f"secret {self.name}: write either 'file' or 'env'")


@dataclass(frozen=True, kw_only=True)
class StageOptions(Options):
    """What every stage takes besides its own options."""

    # Whether recipes may name it; particle-os itself uses the others.
    in_recipes: ClassVar[bool] = True

    type: str
    name: StageName | None = None
    """What the stage is called in progress, log and result; its type when not given."""
    when: When | None = None
    """When it is part of the build; it is left out of the others, and a note says so."""
    timeout: Duration | None = None
    """The time after which it is ended and fails: 90s, 20m, 2h, or whole seconds."""
    network: Literal["none"] | None = None
    """With none, nothing that the stage runs reaches a network."""
    secrets: tuple[Secret, ...] = ()
    """Values that are kept out of the log, the result, the cache and the image."""

    @property
    def asks_network(self) -> bool:
        """Whether its result depends on what the network has to give at the time."""
        return self.reads_network and self.network is None

    @property
    def label(self) -> str:
        """What it is called where its number is not enough; not escaped for terminals."""
        return f"{self.name} ({self.type})" if self.name else self.type

    def needs(self) -> Iterable[Need]:
        """What earlier stages must have brought, where the base does not hold it."""
        return ()

    def may_bring(self, need: Need) -> bool:
        """Whether a later stage may find what it needs because of this one."""
        return not self.only_configures

    def removes(self) -> Iterable[str]:
        """The packages that are not there after it."""
        return ()

    def ahead(self, target: Target) -> None:
        """Work that `run` then finds done, beside the last work of the stage before.

        It writes to /run of the target alone. What fails here fails again, and is told, in `run`.
        """

    def applies(self, architecture: str) -> bool:
        """Whether it is part of a build for this Debian architecture."""
        return self.when is None or architecture in self.when.architecture

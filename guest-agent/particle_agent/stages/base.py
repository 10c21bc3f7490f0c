"""The base class of all stages: the options that all share, and the methods to override."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar

from particle_agent.contract.architectures.record import Architecture as Architecture
from particle_agent.contract.hosts import StageNetwork
from particle_agent.contract.needs import Need as Need
from particle_agent.contract.options import (
    PUBLIC_IF_VALID,
    AnyOf,
    DebianArchitecture,
    Duration,
    HostPath,
    OneOrMore,
    Options,
    Place,
    RecipeVariable,
    SecretName,
    StageName,
    VariableName,
)
from particle_agent.contract.wire import OutputName
from particle_agent.target.target import Target


@dataclass(frozen=True, kw_only=True)
class When(Options):
    """The condition under which a stage is part of a build; several must all hold."""

    architecture: Annotated[tuple[DebianArchitecture, ...], OneOrMore()] | None = None
    """The Debian architecture, or a list of architectures, of the images that need the stage."""
    variable: RecipeVariable | None = None
    """The name of a variable of the recipe, which must have the value in `is`."""
    is_: (
        Annotated[
            str | int | bool | tuple[str, ...],
            AnyOf("a string, an integer, true or false, or a list of strings"),
        ]
        | None
    ) = None
    """The value of the variable, or a list of values."""

    def __post_init__(self) -> None:
        if self.architecture is None and self.variable is None:
            raise ValueError("when: write 'architecture', or 'variable' and 'is'")
        if (self.variable is None) != (self.is_ is None):
            raise ValueError("when: 'variable' and 'is' belong together")


@dataclass(frozen=True, kw_only=True)
class Secret(Options):
    """A confidential value for a stage, from a file or an environment variable.

    While the stage runs, the file /run/secrets/NAME of the system under construction holds the
    value, in memory.
    """

    # A value in place of a name may be the secret itself.
    name: Annotated[SecretName, PUBLIC_IF_VALID]
    """The name by which the stage uses it."""
    file: Annotated[HostPath, PUBLIC_IF_VALID] | None = None
    """The file on the host that holds the value, relative to the recipe."""
    env: Annotated[VariableName, PUBLIC_IF_VALID] | None = None
    """The environment variable of particle-os that holds the value."""

    def __post_init__(self) -> None:
        if (self.file is None) == (self.env is None):
            raise ValueError(f"secret {self.name}: write either 'file' or 'env'")


@dataclass(frozen=True, kw_only=True)
class StageOptions(Options):
    """The options that every stage has in addition to its own."""

    # Whether recipes may name it; particle-os itself uses the others.
    in_recipes: ClassVar[bool] = True

    type: str
    name: StageName | None = None
    """The stage's name in progress, log and result. The default is its type."""
    when: When | None = None
    """When the stage is part of the build. Other builds leave it out, with a note."""
    timeout: Duration | None = None
    """The time limit: `90s`, `20m`, `2h`, or whole seconds. A stage that exceeds it fails."""
    network: StageNetwork | None = None
    """With `none`, the stage runs without a network. With `packages`, too, but the host fetches the
    packages of an apt stage. With a list, the stage reaches just these hosts, through a proxy for
    HTTP and HTTPS: names, `*.NAME` for all names below, or IPv4 addresses, on port 80 and 443 or on
    the port after a colon."""
    secrets: tuple[Secret, ...] = ()
    """Confidential values. They stay out of the log, the result, the cache and the image."""

    @property
    def asks_network(self) -> bool:
        """Whether the result depends on the network."""
        return self.reads_network and self.network != "none"

    @property
    def reaches_network(self) -> bool:
        """Whether the VM's network card has its cable while the stage runs."""
        return self.reads_network and self.network is None

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that the stage may reach through the proxy (`contract.hosts`)."""
        return self.network if self.reads_network and isinstance(self.network, tuple) else ()

    @property
    def publishes(self) -> tuple[OutputName, ...]:
        """The output disks whose content is published in addition to an image."""
        return ()

    @property
    def input_disk(self) -> str | None:
        """The reference to the attached file that the stage reads from `wire.INPUT_DISK`."""
        return None

    @property
    def label(self) -> str:
        """The stage's name in messages. It is not escaped for terminals."""
        return f"{self.name} ({self.type})" if self.name else self.type

    def attached_faults(self) -> Iterable[tuple[Place, str]]:
        """The faults that show once the host knows the kinds of the files that the stage names."""
        return ()

    def needs(self) -> Iterable[Need]:
        """The things that the base or earlier stages must provide."""
        return ()

    def later_needs(self) -> Iterable[Need]:
        """The things that the base or any stage must provide, also a later one."""
        return ()

    def boot_needs(self, architecture: Architecture) -> Iterable[Need]:
        """The further needs of an image that boots, which differ by architecture."""
        return ()

    def may_bring(self, need: Need) -> bool:
        """Whether this stage may provide what a later stage needs."""
        return not self.only_configures

    def names(self, need: Need) -> bool:
        """Whether the options name what meets the need, so that this stage certainly brings it."""
        return False

    def rewrites(self) -> Iterable[tuple[str, str]]:
        """The files that the stage replaces or removes, and the option to use instead.

        The files are fnmatch(3) patterns.
        """
        return ()

    def replaces(self, path: str, before: Sequence[StageOptions]) -> str | None:
        """The advice for a file that the stage replaces or removes; None if the file stays.

        `before` are the earlier stages, whose packages can matter.
        """
        return next((use for pattern, use in self.rewrites() if fnmatchcase(path, pattern)), None)

    def removes(self) -> Iterable[str]:
        """The packages that the stage removes."""
        return ()

    def ahead(self, target: Target) -> None:
        """Does work in advance, while the previous stage finishes; `run` then finds it done.

        It may write only to /run of the target. An error here is ignored: `run` meets it again and
        reports it.
        """

    def applies(self, architecture: str) -> bool:
        """Whether the stage is part of a build for this Debian architecture."""
        wanted = self.when.architecture if self.when is not None else None
        return wanted is None or architecture in wanted

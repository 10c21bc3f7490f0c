"""Base images: from a reference to a root file system on the host and its digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from particle_os.base import container, layers
from particle_os.base.container import ImageReference
from particle_os.base.oci import ContainerImage
from particle_os.base.tarball import architecture_of
from particle_os.errors import InfrastructureError, UsageError
from particle_os.sandbox.agent import Agent, Listener
from particle_os.system.checksum import file_sha256
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import Workspace


class Base(Protocol):
    """A root file system that can be sent to a VM; `digest` names its content."""

    @property
    def reference(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def size(self) -> int:
        """Bytes as it is sent: compressed, if it is."""
        ...

    def fetch(self, work: Workspace, deadline: Deadline, log: Callable[[str], None]) -> None:
        """Brings what is missing to the host."""
        ...

    def is_here(self) -> bool:
        """Whether all of it is on the host."""
        ...

    def push(self, agent: Agent, deadline: Deadline, listen: Listener) -> None:
        """Has the agent unpack it.

        Raises StageFailed when it is no base, InfrastructureError when it has changed.
        """
        ...


@dataclass(frozen=True)
class TarBase:
    """A base as a tarball; `digest` is "sha256:" and the file's SHA-256."""

    reference: str
    tarball: Path
    digest: str

    def size(self) -> int:
        return self.tarball.stat().st_size

    def fetch(self, work: Workspace, deadline: Deadline, log: Callable[[str], None]) -> None:
        pass

    def is_here(self) -> bool:
        return True

    def push(self, agent: Agent, deadline: Deadline, listen: Listener) -> None:
        with self.tarball.open("rb") as stream:
            sent = agent.unpack(stream, deadline, listen)
        if f"sha256:{sent}" != self.digest:
            raise InfrastructureError(
                f"{self.tarball} has changed: it is not {self.digest} any more",
                hint="Remove the file from the cache, or do not write it during a build.",
            )


@dataclass(frozen=True)
class ImageBase:
    """A base as a container image; `digest` is that of its manifest."""

    image: ContainerImage
    source: ImageReference
    cache: Path

    @property
    def reference(self) -> str:
        return self.image.reference

    @property
    def digest(self) -> str:
        return self.image.digest

    def size(self) -> int:
        return self.image.size()

    def fetch(self, work: Workspace, deadline: Deadline, log: Callable[[str], None]) -> None:
        container.fetch(
            self.image, self.source, cache=self.cache, work=work, deadline=deadline, log=log
        )

    def is_here(self) -> bool:
        return layers.is_fetched(self.image, self.cache)

    def push(self, agent: Agent, deadline: Deadline, listen: Listener) -> None:
        with layers.opened(self.image, self.cache) as stream:
            agent.unpack(stream, deadline, listen, verb="unpack-image")


def resolve(reference: str, relative_to: Path, architecture: str, cache: Path) -> Base | None:
    """The base of a reference that stands for itself; None for `mmdebstrap:` ones.

    Of a container image only the description is fetched. Raises UsageError when there is no such
    base, or it is of another architecture; InfrastructureError when a registry does not answer.
    """
    source = container.parse(reference, relative_to)
    if source is None:
        return resolve_file(reference, relative_to, architecture)
    image = container.describe(reference, relative_to, architecture, cache)
    return ImageBase(image, source, cache)


def resolve_file(reference: str, relative_to: Path, architecture: str) -> TarBase | None:
    """The base of a `tar:` reference; None for the others.

    Raises UsageError when the file is missing, is no tar archive, or is of another architecture.
    """
    if not reference.startswith("tar:"):
        return None
    path = relative_to / reference.removeprefix("tar:")
    if not path.is_file():
        raise UsageError(f"the base image {reference} does not exist: {path}")
    found = architecture_of(path)
    if found is None:
        raise UsageError(
            f"{path} holds no root file system: there is no program in /usr/bin or /bin",
            hint="The archive must have the root directory itself at its top.",
        )
    if found != architecture:
        raise UsageError(f"{path} is for {found}, but the recipe wants {architecture}")
    return TarBase(reference, path, f"sha256:{file_sha256(path)}")

"""Base images: root file systems on the host, with their references and digests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from particle_os.base import container, layers
from particle_os.base.commit import Signature
from particle_os.base.container import ImageReference
from particle_os.base.oci import ContainerImage
from particle_os.errors import InfrastructureError
from particle_os.sandbox.agent import Agent, Listener
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular
from particle_os.system.workspace import Workspace


class Base(Protocol):
    """A root file system that can be sent to a VM; `digest` identifies its content."""

    @property
    def reference(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def identity(self) -> str:
        """A text that differs for bases from which the same stages make different images."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts that may surprise the user."""
        ...

    @property
    def is_commit(self) -> bool:
        """Whether it is a commit of OSTree, which a disk brings to the VM."""
        ...

    @property
    def signature(self) -> Signature | None:
        """The signature of a commit, once the VM has taken the commit; None for other bases."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the host, apart from those of container images, that it is read from."""
        ...

    def size(self) -> int:
        """The number of bytes to send, which may be compressed."""
        ...

    def fetch(self, work: Workspace, deadline: Deadline, log: Callable[[str], None]) -> None:
        """Fetches the missing parts to the host."""
        ...

    def is_here(self) -> bool:
        """Whether the base is complete on the host."""
        ...

    def drop_damaged(self) -> bool:
        """Removes damaged parts, which `fetch` then fetches; returns whether there were any."""
        ...

    def description(self) -> dict[str, Any]:
        """The description in a container image; empty for other bases."""
        ...

    def write_disk(self, disk: Path) -> None:
        """Writes the disk with a commit, which `push` needs. Raises UsageError for damage."""
        ...

    def push(self, agent: Agent, deadline: Deadline, listen: Listener) -> None:
        """Sends the base to the agent, which unpacks it.

        Raises StageFailed when it is not a base, InfrastructureError when it has changed.
        """
        ...


class StreamedBase:
    """The part that all bases share which are no commits."""

    is_commit = False
    signature = None

    @property
    def files(self) -> tuple[Path, ...]:
        return ()

    def write_disk(self, disk: Path) -> None:
        """Writes no disk."""


@dataclass(frozen=True)
class TarBase(StreamedBase):
    """A base as a tarball; `digest` is "sha256:" and the file's SHA-256."""

    reference: str
    tarball: Path
    digest: str

    @property
    def identity(self) -> str:
        return self.digest

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.tarball,)

    def size(self) -> int:
        return self.tarball.stat().st_size

    def fetch(self, work: Workspace, deadline: Deadline, log: Callable[[str], None]) -> None:
        pass

    def is_here(self) -> bool:
        return True

    def drop_damaged(self) -> bool:
        return False

    def description(self) -> dict[str, Any]:
        return {}

    def push(self, agent: Agent, deadline: Deadline, listen: Listener) -> None:
        with open_regular(self.tarball) as stream:
            sent = agent.unpack(stream, deadline, listen)
        if f"sha256:{sent}" != self.digest:
            raise InfrastructureError(
                f"{self.tarball} has changed: its digest is no longer {self.digest}",
                hint="Remove the file from the cache, or do not write it during a build.",
            )


@dataclass(frozen=True)
class ImageBase(StreamedBase):
    """A base as a container image; `digest` is the digest of its manifest."""

    image: ContainerImage
    source: ImageReference
    cache: Path

    @property
    def reference(self) -> str:
        return self.image.reference

    @property
    def digest(self) -> str:
        return self.image.digest

    @property
    def identity(self) -> str:
        return self.digest

    @property
    def notes(self) -> tuple[str, ...]:
        return self.image.notes

    def size(self) -> int:
        return self.image.size()

    def fetch(self, work: Workspace, deadline: Deadline, log: Callable[[str], None]) -> None:
        container.fetch(
            self.image, self.source, cache=self.cache, work=work, deadline=deadline, log=log
        )

    def is_here(self) -> bool:
        return layers.is_fetched(self.image, self.cache)

    def drop_damaged(self) -> bool:
        return layers.drop_damaged(self.image, self.cache)

    def description(self) -> dict[str, Any]:
        return {
            "digest": self.image.digest,
            "architecture": self.image.architecture,
            "layers": [{"digest": each.digest, "size": each.size} for each in self.image.layers],
            "config": dict(self.image.config),
        }

    def push(self, agent: Agent, deadline: Deadline, listen: Listener) -> None:
        with layers.opened(self.image, self.cache) as stream:
            agent.unpack(stream, deadline, listen, verb="unpack-image")

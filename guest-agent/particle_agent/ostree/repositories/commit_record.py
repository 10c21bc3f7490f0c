"""The record of a commit, which the stage of the disk reads after the stage `ostree`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from particle_agent.contract.inspection import STATEROOT
from particle_agent.errors import StageError
from particle_agent.target.target import Target

# The public key of the signatures, and the directories of /var, in the workshop.
KEY, VAR_DIRECTORIES = "key.gpg", "var.json"
CHECKSUM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CommitRecord:
    """A commit in the repository `repository` of the scratch disk.

    `parent` is the checksum of the version before it, which is in the repository `archive`.
    `signer` is the fingerprint of the key that has signed the commit.
    """

    ref: str
    checksum: str
    stateroot: str
    kernel: str
    publishes: tuple[str, ...]
    # The name of the server on the machines, if any, and the ID of the collection of its refs.
    remote: str | None
    collection: str | None
    parent: str | None = None
    version: str | None = None
    signer: str | None = None

    def of_parent(self) -> CommitRecord:
        """The record of the parent, which is deployed as this commit is. Raises StageError."""
        if self.parent is None:
            raise StageError("the commit has no parent")
        return replace(self, checksum=self.parent, parent=None)

    @classmethod
    def read(cls, target: Target) -> CommitRecord | None:
        """The record of the stage `ostree`; None when it has not run."""
        file = _file(target)
        if not file.exists():
            return None
        fields = json.loads(file.read_text())
        return cls(**fields | {"publishes": tuple(fields["publishes"])})

    def write(self, target: Target) -> None:
        _file(target).write_text(json.dumps(asdict(self)))


def naming(stateroot: str) -> str:
    """The option of `ostree commit` that lets a commit name its stateroot."""
    return f"--add-metadata-string={STATEROOT}={stateroot}"


def workshop(target: Target) -> Path:
    """The directory for repositories, on the scratch disk beside the target."""
    return target.root.parent / "ostree"


def _file(target: Target) -> Path:
    return workshop(target) / "commit.json"

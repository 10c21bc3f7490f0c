"""The record of a commit, which the stage of the disk reads after the stage `ostree`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from particle_agent.target.target import Target


@dataclass(frozen=True)
class CommitRecord:
    """A commit in the repository `repository` of the scratch disk."""

    ref: str
    checksum: str
    stateroot: str
    kernel: str
    counted_boots: int
    publish: tuple[str, ...]

    @classmethod
    def read(cls, target: Target) -> CommitRecord | None:
        """The record of the stage `ostree`; None when it has not run."""
        file = _file(target)
        return cls(**json.loads(file.read_text())) if file.exists() else None

    def write(self, target: Target) -> None:
        _file(target).write_text(json.dumps(asdict(self)))


def workshop(target: Target) -> Path:
    """The directory for repositories, on the scratch disk beside the target."""
    return target.root.parent / "ostree"


def _file(target: Target) -> Path:
    return workshop(target) / "commit.json"

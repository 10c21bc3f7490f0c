"""Stage publish: what the stage `ostree` publishes, for a recipe that makes no disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.errors import StageError
from particle_agent.ostree.repositories import publication
from particle_agent.ostree.repositories.commit_record import CommitRecord
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target


@dataclass(frozen=True, kw_only=True)
class Publish(StageOptions):
    """Writes the repository with the commit, and what else is published, to the output disks."""

    in_recipes: ClassVar[bool] = False
    only_configures: ClassVar[bool] = True
    type: Literal["publish"] = "publish"

    def run(self, target: Target) -> None:
        record = CommitRecord.read(target)
        if record is None:
            raise StageError("there is no commit to publish")
        publication.write(target, record)

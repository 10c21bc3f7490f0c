"""The last stages that particle-os adds: the system as a tar archive, or the commit of `ostree`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.errors import StageError
from particle_agent.ostree.repositories import publication
from particle_agent.ostree.repositories.commit_record import CommitRecord
from particle_agent.stages.base import StageOptions
from particle_agent.system import tarball
from particle_agent.target.target import Target

OPTIONS = ("--xattrs", "--xattrs-include=*", "--exclude=./lost+found")


@dataclass(frozen=True, kw_only=True)
class Export(StageOptions):
    """Writes the system as a tar archive, with owners, modes, links, devices and attributes."""

    in_recipes: ClassVar[bool] = False
    type: Literal["export"] = "export"

    def run(self, target: Target) -> None:
        with target.mounted(target.root, "--bind") as tree:
            tarball.write(target, tree, "output", OPTIONS)


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
        publication.collect(target, record)
        publication.write(target, record)

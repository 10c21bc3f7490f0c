"""Stage export: writes the system as a tar archive to the output disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

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

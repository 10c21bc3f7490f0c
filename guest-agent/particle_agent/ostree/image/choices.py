"""The choices of a recipe about the files of machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Var = Literal["factory", "initial", "refuse"]
UserRules = Literal["sysusers", "merge"]
Etc = Literal["persistent", "transient"]
AutomaticUpdates = Literal["none", "stage", "apply"]


@dataclass(frozen=True)
class RootSettings:
    """The wanted mounts of a deployment, as ostree-prepare-root(1) makes them."""

    etc: Etc = "persistent"
    composefs: bool = False

    @property
    def text(self) -> str:
        """The configuration. /sysroot, the physical root, is mounted read-only."""
        lines = ["[sysroot]", "readonly = true"]
        if self.etc == "transient":
            lines += ["[etc]", "transient = true"]
        if self.composefs:
            lines += ["[composefs]", "enabled = yes"]
        return "".join(f"{line}\n" for line in lines)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of the kernel that the mounts need in an initramfs."""
        if self.composefs:
            return ("overlay", "erofs", "loop")
        return ("overlay",) if self.etc == "transient" else ()


@dataclass(frozen=True)
class Choices:
    """All choices of a recipe. Machines count `counted_boots` boots of the commit.

    With `container`, the commit becomes a container image, too.
    """

    counted_boots: int
    root: RootSettings
    var: Var
    users: UserRules
    automatic_updates: AutomaticUpdates
    container: bool = False

"""Any command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from particle_agent.options import AbsolutePath, Argument, AtLeastOne, Duration, StageOptions
from particle_agent.target import Target


@dataclass(frozen=True, kw_only=True)
class Run(StageOptions):
    """Runs a command as root in the system under construction; it fails when its status is not 0.

    No shell is involved unless the command names one: `[sh, -eu, -c, "..."]`. Names are resolved
    and the network can be reached. What it leaves running is ended.
    """

    reads_network: ClassVar[bool] = True
    type: Literal["run"] = "run"
    command: Annotated[tuple[Argument, ...], AtLeastOne()]
    """The program and its arguments, looked up in the image; NAME=value before it sets its
    environment, as with env(1)."""
    working_directory: AbsolutePath = "/"
    """The directory in which it runs."""
    stdin: str = ""
    """What it can read from its standard input."""
    timeout: Duration = 600
    """The time after which it is ended and fails: 90s, 20m, 2h, or whole seconds."""

    def run(self, target: Target) -> None:
        argv = ["env", f"--chdir={self.working_directory}", "--", *self.command]
        with target.network():
            target.chroot(argv, stdin=self.stdin)

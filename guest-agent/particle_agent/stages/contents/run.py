"""Any command or script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from particle_agent.contract.options import AtLeastOne, Duration, Place, VariableName, refuse
from particle_agent.contract.values import AbsolutePath, Argument, Script
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target

SHELL = ("/bin/sh", "-eu")
# On a file system that exists during the build only.
SCRIPT = "/run/particle-os-script"
# unshare(1): with the command end all processes that it started, and the mounts that it made.
ISOLATED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


@dataclass(frozen=True, kw_only=True)
class Run(StageOptions):
    """Runs a command or a script as root; the stage fails when its status is not 0.

    It runs in the system under construction, or in the helper VM beside it. No shell is involved
    unless it is named. Names are resolved and the network can be reached. What it leaves running
    is ended.
    """

    reads_network: ClassVar[bool] = True
    type: Literal["run"] = "run"
    command: Annotated[tuple[Argument, ...], AtLeastOne()] | None = None
    """The program and its arguments; NAME=value before it sets its environment, as with env(1).
    Either this or `script`."""
    script: Script | None = None
    """The text of a script for `interpreter`."""
    interpreter: Annotated[tuple[Argument, ...], AtLeastOne()] = SHELL
    """The program that gets the script as a file, and its options."""
    environment: Mapping[VariableName, Argument] = field(default_factory=dict)
    """Variables of the environment, besides PATH, HOME and a few more that are always there."""
    in_: Literal["target", "helper"] = "target"
    """Where it runs: in the system under construction, or in the helper VM, where the variable
    TARGET holds the directory of that system."""
    working_directory: AbsolutePath = "/"
    """The directory in which it runs."""
    stdin: str = ""
    """What it can read from its standard input."""
    timeout: Duration = 600
    """The time after which it is ended and fails: 90s, 20m, 2h, or whole seconds."""

    def __post_init__(self) -> None:
        refuse(self._faults())

    def _faults(self) -> Iterator[tuple[Place, str]]:
        if (self.command is None) == (self.script is None):
            yield (), "run: give either 'command' or 'script'"
        if self.script is None and self.interpreter != SHELL:
            message = "run: 'interpreter' is for a 'script'; a command names its program"
            yield ("interpreter",), message
        if self.script is not None and self.script.startswith("#!") and self.interpreter == SHELL:
            first = self.script.splitlines()[0]
            if first.removeprefix("#!").split()[:1] != [SHELL[0]]:
                yield (
                    ("script",),
                    f"run: the script's first line '{first}' is a comment here; name the program "
                    "in 'interpreter'",
                )

    def run(self, target: Target) -> None:
        with target.network(), self._program(target) as program:
            argv = ["env", f"--chdir={self.working_directory}", "--", *program]
            if self.in_ == "target":
                target.chroot(argv, stdin=self.stdin, env=self.environment)
            else:
                env = {**self.environment, "TARGET": str(target.root)}
                target.run([*ISOLATED, *argv], stdin=self.stdin, env=env)

    @contextmanager
    def _program(self, target: Target) -> Iterator[tuple[str, ...]]:
        """What is to be run, with a script written to a file for as long as the context lasts."""
        if self.script is None:
            assert self.command is not None
            yield self.command
            return
        target.write(SCRIPT, self.script, mode=0o600)
        place = SCRIPT if self.in_ == "target" else str(target.path(SCRIPT))
        try:
            yield (*self.interpreter, place)
        finally:
            target.remove(SCRIPT)

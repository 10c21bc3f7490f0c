"""Stage run: a command or a script."""

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
# /run exists during the build only.
SCRIPT = "/run/particle-os-script"
# unshare(1): when the command ends, its processes and its mounts end with it.
ISOLATED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


@dataclass(frozen=True, kw_only=True)
class Run(StageOptions):
    """Runs a command or a script as root. The stage fails when the exit status is not 0.

    The command runs in the system under construction, or in the helper VM. It runs without a shell
    unless it names one. It can resolve names and reach the network. Processes that it leaves behind
    are killed.
    """

    reads_network: ClassVar[bool] = True
    type: Literal["run"] = "run"
    command: Annotated[tuple[Argument, ...], AtLeastOne()] | None = None
    """The program and its arguments. NAME=value before the program sets a variable, as in env(1).
    Give either this or `script`."""
    script: Script | None = None
    """The text of a script that `interpreter` runs."""
    interpreter: Annotated[tuple[Argument, ...], AtLeastOne()] = SHELL
    """The program that runs the script, and its options. The script is its last argument."""
    environment: Mapping[VariableName, Argument] = field(default_factory=dict)
    """More environment variables. PATH, HOME and a few others are always set."""
    in_: Literal["target", "helper"] = "target"
    """Where the command runs: in the system under construction, or in the helper VM, where the
    variable TARGET holds the directory of that system."""
    working_directory: AbsolutePath = "/"
    """The working directory of the command."""
    stdin: str = ""
    """The text on the standard input of the command."""
    timeout: Duration = 600
    """The time limit: `90s`, `20m`, `2h`, or whole seconds. A command that exceeds it fails."""

    def __post_init__(self) -> None:
        refuse(self._faults())

    def _faults(self) -> Iterator[tuple[Place, str]]:
        if (self.command is None) == (self.script is None):
            yield (), "run: give either 'command' or 'script'"
        if self.script is None and self.interpreter != SHELL:
            message = "run: 'interpreter' needs a 'script'; a command names its own program"
            yield ("interpreter",), message
        if self.script is not None and self.script.startswith("#!") and self.interpreter == SHELL:
            first = self.script.splitlines()[0]
            if first.removeprefix("#!").split()[:1] != [SHELL[0]]:
                yield (
                    ("script",),
                    f"run: the script's first line '{first}' is a comment here: name the program "
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
        """The command to run. A script lies in a file while the context lasts."""
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

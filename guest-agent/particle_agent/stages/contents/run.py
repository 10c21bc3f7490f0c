"""Stage run: a command or a script."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from particle_agent.contract import commands
from particle_agent.contract.options import (
    AtLeastOne,
    Duration,
    HostFile,
    Place,
    VariableName,
    refuse,
)
from particle_agent.contract.values import AbsolutePath, Argument, Script
from particle_agent.errors import CommandFailed
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target

SHELL = ("/bin/sh", "-eu")
# /run exists during the build only.
SCRIPT = "/run/particle-os-script"
# A relative path of a script. No program in the image has such a name without a directory.
PATH = re.compile(r"(?!/)[A-Za-z0-9._/-]+\.(sh|bash|py|pl|rb)")
# execve(2): the kernel reads as much of the first line.
LINE_BYTES = 256
# The messages of nft(8), of iptables(8) in both variants, and of ip(8) without CAP_NET_ADMIN.
REFUSED = re.compile(
    r"Operation not permitted \(you must be root\)|Permission denied \(you must be root\)"
    r"|RTNETLINK answers: Operation not permitted|Could not process rule: Operation not permitted"
)
PRIVATE = "With 'network: none' the stage has a network of its own, which it may change."
# unshare(1): when the command ends, its processes and its mounts end with it.
ISOLATED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


@dataclass(frozen=True, kw_only=True)
class Run(StageOptions):
    """Runs a command or a script as root. The stage fails when the exit status is not 0.

    The command runs in the system under construction, or in the helper VM. It runs without a shell
    unless it names one. It can resolve names and reach the network. With `network: none`, or with a
    list of hosts, it has a network of its own instead: there `nft -c` can check the rules of a
    firewall. Processes that it leaves behind are killed.
    """

    reads_network: ClassVar[bool] = True
    type: Literal["run"] = "run"
    command: Annotated[tuple[Argument, ...], AtLeastOne()] | None = None
    """The program and its arguments. NAME=value before the program sets a variable, as in env(1).
    Give one of this, `script` and `script-file`."""
    script: Script | None = None
    """The text of a script that `interpreter` runs."""
    script_file: HostFile | None = None
    """A file with a script, relative to the recipe. Its line `#!` names the interpreter, unless
    `interpreter` does."""
    interpreter: Annotated[tuple[Argument, ...], AtLeastOne()] | None = None
    """The program that runs the script, and its options. The script is its last argument. The
    default is `[/bin/sh, -eu]`."""
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
        given = (self.command, self.script, self.script_file)
        if sum(each is not None for each in given) != 1:
            yield (), "run: give one of 'command', 'script' and 'script-file'"
        if self.command is not None:
            for index, fault in commands.faults(self.command):
                yield ("command", index), f"run: {fault}"
        if self.script is not None and PATH.fullmatch(self.script.strip()):
            message = (
                f"run: the script '{self.script.strip()}' looks like a path: 'script-file' takes a "
                "file beside the recipe, 'command' a program in the image"
            )
            yield ("script",), message
        if self.command is not None and self.interpreter is not None:
            message = "run: 'interpreter' needs a 'script'; a command names its own program"
            yield ("interpreter",), message
        if self.interpreter is None and self.script is not None and self.script.startswith("#!"):
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
                self._run_inside(target, argv)
            else:
                env = {**self.environment, "TARGET": str(target.root)}
                target.run([*ISOLATED, *argv], stdin=self.stdin, env=env)

    def _run_inside(self, target: Target, argv: list[str]) -> None:
        """Runs a program of the target, which may administer a network that is its own."""
        own = nullcontext() if self.network is None else target.capability("NET_ADMIN")
        try:
            with own:
                target.chroot(argv, stdin=self.stdin, env=self.environment)
        except CommandFailed as error:
            if self.network is None and any(REFUSED.search(line) for line in error.tail):
                error.hint = PRIVATE
            raise

    @contextmanager
    def _program(self, target: Target) -> Iterator[tuple[str, ...]]:
        """The command to run. A script lies in a file while the context lasts."""
        if self.command is not None:
            yield self.command
            return
        interpreter = self.interpreter or SHELL
        if self.script_file is not None:
            with target.attached(self.script_file).open("rb") as data:
                interpreter = self._interpreter_of(data.read(LINE_BYTES))
                data.seek(0)
                target.write_from(data, SCRIPT, mode=0o600)
        else:
            target.write(SCRIPT, self.script or "", mode=0o600)
        place = SCRIPT if self.in_ == "target" else str(target.path(SCRIPT))
        try:
            yield (*interpreter, place)
        finally:
            target.remove(SCRIPT)

    def _interpreter_of(self, head: bytes) -> tuple[str, ...]:
        """The program that runs a script which begins with `head` (execve(2))."""
        if self.interpreter is not None or not head.startswith(b"#!"):
            return self.interpreter or SHELL
        words = head.splitlines()[0].decode("utf-8", "replace").removeprefix("#!").split(None, 1)
        return tuple(word.strip() for word in words) or SHELL

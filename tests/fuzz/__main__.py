"""Fuzzes the parsers of foreign bytes, or replays an input: `python -m tests.fuzz --help`.

Each target runs in a process of its own that may write to its own directory only.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from particle_os.system import process
from particle_os.system.confinement import Confinement, landlock_abi

from .limits import defect
from .targets import TARGETS

TOP = Path(__file__).parents[2]
# More than libFuzzer's statistics and the last input take on a busy machine.
SLACK_SECONDS = 300
EXECUTIONS = re.compile(r"stat::number_of_executed_units: (\d+)|^#(\d+)\t", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """The fuzzing of one target in a directory: its process, and the file with its output."""

    name: str
    directory: Path
    process: subprocess.Popen[bytes]

    def executions(self) -> int:
        """The number of inputs that have been tried, apart from the long ones."""
        found = EXECUTIONS.findall(self._log())
        return max((int(total or passed) for total, passed in found), default=0)

    def defects(self) -> list[str]:
        """A line for each defect, with the command that replays its input."""
        kept = self.directory / "defects"
        inputs = [path for path in sorted(kept.iterdir()) if path.suffix != ".txt"]
        lines = [
            f"{self.name}: {_summary(path)}\n  {replay_command(self.name, path)}" for path in inputs
        ]
        if self.process.returncode != 0 and not inputs:
            lines.append(f"{self.name}: the fuzzer ended early: {self.directory / 'log'}")
        return lines

    def _log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")


def replay_command(name: str, path: Path) -> str:
    """The command that feeds an input to a target, and shows the error."""
    return f".venv/bin/python -m tests.fuzz --replay {name} {path}"


def _summary(path: Path) -> str:
    """The place of the defect; libFuzzer itself names an input after the kind, as in oom-5e2f."""
    text = path.with_suffix(".txt")
    return text.read_text().partition("\n")[0] if text.exists() else path.name.partition("-")[0]


def fuzz(names: Sequence[str], out: Path, seconds: int, jobs: int) -> list[Run]:
    """Fuzzes the targets, `jobs` at a time, each for some seconds."""
    runs: list[Run] = []
    for start in range(0, len(names), jobs):
        with ExitStack() as stack:
            group = [_started(name, out, seconds, stack) for name in names[start : start + jobs]]
            for run in group:
                # The end of the context ends a process that hangs, and its status shows that.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(run.process, seconds + SLACK_SECONDS)
                print(f"{run.name}: {run.executions()} inputs in {seconds} s", flush=True)
        runs += group
    return runs


def _started(name: str, out: Path, seconds: int, stack: ExitStack) -> Run:
    directory = out.absolute() / name
    directory.mkdir(parents=True, exist_ok=True)
    log = stack.enter_context((directory / "log").open("wb"))
    # Python may be outside of the system's directories.
    reads = (TOP, Path(sys.prefix), Path(sys.base_prefix))
    within = Confinement(reads=reads, writes=(directory,))
    argv = [sys.executable, "-m", "tests.fuzz.one", name, str(directory), str(seconds)]
    started = process.started(argv, within=within, stdout=log, stderr=subprocess.STDOUT)
    return Run(name, directory, stack.enter_context(started))


def replay(name: str, path: Path) -> int:
    """Feeds an input to a target; returns 1 if it shows a defect."""
    data = path.read_bytes()
    out = path.parent / "scratch"
    out.mkdir(exist_ok=True)
    os.chdir(out)
    found = defect(TARGETS[name].function, data, TARGETS[name].allowed)
    print(found.text if found else "no defect")
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--out", type=Path, default=TOP / "out" / "fuzz")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FILE"))
    arguments = parser.parse_args()
    if unknown := sorted({*arguments.targets, *(arguments.replay or [])[:1]} - set(TARGETS)):
        parser.error(f"there is no target {unknown[0]}; the targets: {', '.join(TARGETS)}")
    return arguments


def main() -> int:
    """Fuzzes or replays; returns 1 if there is a defect."""
    arguments = _arguments()
    if arguments.replay:
        return replay(arguments.replay[0], Path(arguments.replay[1]).absolute())
    if importlib.util.find_spec("atheris") is None:
        print("atheris is missing; 'make fuzz' installs it", file=sys.stderr)
        return 2
    if not landlock_abi():
        print("the kernel has no Landlock: the targets are not confined", file=sys.stderr)
    names = arguments.targets or list(TARGETS)
    runs = fuzz(names, arguments.out, arguments.seconds, arguments.jobs)
    defects = [line for run in runs for line in run.defects()]
    print(f"{len(runs)} targets, {sum(run.executions() for run in runs)} inputs", end="; ")
    print(f"{len(defects)} defects" + "".join(f"\n{line}" for line in defects))
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())

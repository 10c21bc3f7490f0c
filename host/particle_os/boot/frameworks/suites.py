"""Runs the tests of other frameworks in a system that has answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from particle_os.boot.frameworks import goss, testinfra
from particle_os.boot.frameworks.image_shell import ImageShell
from particle_os.boot.observation.verdict import CheckResult
from particle_os.errors import DeadlineExceeded
from particle_os.system.deadline import Deadline
from particle_os.vm.chardev import Chardev
from particle_os.vm.console import QemuEnded
from particle_os.vm.machine import Machine

# For all tests of one framework.
SECONDS = 900.0
RunOfSuite = Callable[[Deadline], Iterator[CheckResult]]


def results(
    tests: Path | None, file: bytes | None, machine: Machine, answer: Chardev, factor: float
) -> tuple[CheckResult, ...]:
    """Returns the results of `tests` for pytest-testinfra, and of the content of a goss file.

    `factor` multiplies the time limits. Raises InfrastructureError when QEMU or pytest fails.
    """
    shell = ImageShell(machine, answer, factor)
    runs: dict[str, RunOfSuite] = {}
    if file is not None:
        runs[goss.NAME] = lambda deadline: goss.results(file, shell, deadline)
    if tests is not None:
        runs[testinfra.NAME] = lambda deadline: testinfra.results(
            tests, shell, machine.directory, deadline
        )
    found: list[CheckResult] = []
    for name, run in runs.items():
        deadline = Deadline.after(SECONDS * factor, f"all tests of {name}")
        try:
            found.extend(run(deadline))
        except DeadlineExceeded as error:
            found.append(CheckResult(name=name, passed=False, detail=error.brief))
        except QemuEnded as ended:
            if ended.status != 0:
                raise
            detail = "the machine has switched itself off"
            return (*found, CheckResult(name=name, passed=False, detail=detail))
    return tuple(found)

"""A farm of our own on this machine: a scheduler and workers that end with the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from particle_os.errors import InfrastructureError
from particle_os.fleet.farm import key_making, slots
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.fleet.farm.member.scheduler import SchedulerSettings
from particle_os.fleet.farm.member.worker import FarmMember
from particle_os.system import process
from particle_os.system.confinement import environment
from particle_os.system.deadline import Deadline
from particle_os.system.interrupt import held_back

START_SECONDS = 120.0
LINE_LIMIT = 4096
KEPT, KEPT_PREFIXES = ("HOME", "TMPDIR"), ("DASK_", "PYTHON")
PYTHON = (sys.executable, "-P", "-m")
HERE = "particle_os.fleet.farm.member"


@dataclass(frozen=True)
class LocalFarm:
    """The URL of the scheduler, and the keys that only this farm has."""

    url: str
    keys: FarmKeys


@contextmanager
def local_farm(workers: int, work: Path) -> Iterator[LocalFarm]:
    """Runs a scheduler and workers for as long as the context lasts.

    Other users of this machine cannot reach them: the keys are new, and in `work`. Raises
    InfrastructureError when they do not start.
    """
    made = key_making.make(Path(tempfile.mkdtemp(dir=work)) / "keys")
    listen = SchedulerSettings("tls://127.0.0.1:0", str(made.directory))
    argv = [*PYTHON, f"{HERE}.scheduler", listen.encode()]
    with _started(argv, subprocess.PIPE, _of_scheduler()) as scheduler:
        url = _first_line(scheduler)
        member = FarmMember(
            url, str(made.directory), count=workers, name="local",
            resources=slots.local_resources(),
        )  # fmt: skip
        # The builds are children of the workers. They take secrets from the environment.
        argv = [*PYTHON, f"{HERE}.worker", member.encode()]
        with _started(argv, subprocess.DEVNULL, os.environ):
            yield LocalFarm(url, made)


def _of_scheduler() -> dict[str, str]:
    """The environment of a scheduler: what Python and Dask's settings need, and no secret."""
    kept = {k: v for k, v in os.environ.items() if k in KEPT or k.startswith(KEPT_PREFIXES)}
    return environment(kept)


@contextmanager
def _started(
    argv: Sequence[str], output: int, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program for as long as the context lasts, and at most as long as this process."""
    with held_back():
        running = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            env=env,
            start_new_session=True,
            preexec_fn=process.dies_with_parent(signal.SIGKILL),
        )
    try:
        yield running
    finally:
        process.end_group(running)
        if running.stdout is not None:
            running.stdout.close()


def _first_line(running: subprocess.Popen[bytes]) -> str:
    """The address that a scheduler prints.

    Raises InfrastructureError when it ends before, and DeadlineExceeded when it prints none.
    """
    deadline = Deadline.after(START_SECONDS, "the start of the scheduler")
    line = process.output(running, deadline).readline(LINE_LIMIT)
    if not line.endswith(b"\n"):
        raise InfrastructureError("the scheduler of the farm on this machine did not start")
    return line.decode("utf-8", "replace").strip()

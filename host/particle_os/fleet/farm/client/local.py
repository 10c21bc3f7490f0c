"""A farm of our own on this machine: a scheduler and workers that end with the command."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from particle_os.errors import InfrastructureError
from particle_os.fleet.farm import key_making, slots
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.fleet.farm.member.scheduler import SchedulerSettings
from particle_os.fleet.farm.member.worker import FarmMember
from particle_os.system import process
from particle_os.system.deadline import Deadline
from particle_os.system.interrupt import held_back

START_SECONDS = 120.0
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
    with _started([*PYTHON, f"{HERE}.scheduler", listen.encode()], subprocess.PIPE) as scheduler:
        url = _first_line(scheduler)
        member = FarmMember(
            url, str(made.directory), count=workers, name="local",
            resources=slots.local_resources(),
        )  # fmt: skip
        with _started([*PYTHON, f"{HERE}.worker", member.encode()], subprocess.DEVNULL):
            yield LocalFarm(url, made)


@contextmanager
def _started(argv: Sequence[str], output: int) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program for as long as the context lasts, and at most as long as this process."""
    with held_back():
        running = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
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
    """The address that a scheduler prints. Raises InfrastructureError when it ends before."""
    assert running.stdout is not None
    deadline = Deadline.after(START_SECONDS, "the start of the scheduler")
    poll = select.poll()
    poll.register(running.stdout, select.POLLIN)
    line = b""
    while not line.endswith(b"\n"):
        poll.poll(deadline.remaining() * 1000)
        data = os.read(running.stdout.fileno(), 4096)
        if not data:
            raise InfrastructureError("the scheduler of the farm on this machine did not start")
        line += data
    return line.decode().strip()

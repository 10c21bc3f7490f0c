"""A farm for tests: real processes of Dask on loopback, and builds that a script plays.

A played build behaves like a real one: it has a child in another session, as QEMU is, it holds a
lock, reports events, and publishes a file in one step. Its name says how it goes. All processes
carry a mark in their environment, so that none can hide from `marked`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from particle_os.fleet.farm import key_making, slots
from particle_os.fleet.farm.member.scheduler import SchedulerSettings
from particle_os.fleet.farm.member.worker import FarmMember

from .waiting import is_running, until

# A scheduler gets no other variables of its caller than those of Dask and Python.
MARK = "DASK_PARTICLE_OS_TEST_FARM"
# Plays a build; the words of its name say how: "hangs", "deaf" (to SIGTERM), "held" (until the file
# `hold` is gone), and the exit status at the end.
BUILD = """\
import ctypes, fcntl, json, os, signal, subprocess, sys, time
name, place = sys.argv[1:3]
words = name.split("-")
def say(**event):
    print(json.dumps(event), file=sys.stderr, flush=True)
def note(what):
    log = os.open(os.path.join(place, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{what} {name} {os.getpid()}\\n".encode())
def end(number, frame):
    machine.terminate()
    say(error="ended by SIGTERM", exit_code=143)
    os._exit(143)
machine = subprocess.Popen(
    ["sleep", "1000"], start_new_session=True, stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    preexec_fn=lambda: ctypes.CDLL(None).prctl(1, int(signal.SIGKILL)),
)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in words else end)
lock = open(os.path.join(place, f"lock-{name}"), "w")
fcntl.flock(lock, fcntl.LOCK_EX)
note("began")
say(event="phase-started", phase="stages")
say(event="line", text="a line of a program")
while "hangs" in words or ("held" in words and os.path.exists(os.path.join(place, "hold"))):
    time.sleep(0.02)
for step in range(int(os.environ.get("STEPS", "0"))):
    say(event="note", text=f"step {step}")
    time.sleep(0.05)
code = int(words[-1]) if words[-1].isdigit() else 0
if code:
    say(error=f"it went wrong: {code}", hint="do better", log=None, tail=["the last line"])
else:
    made = os.path.join(place, f"made-{os.getpid()}")
    with open(made, "w") as file:
        file.write(name)
    os.rename(made, os.path.join(place, f"image-{name}"))
    own = os.path.join(place, f"result-{name}.json")
    print(open(own if os.path.exists(own) else os.path.join(place, "result.json")).read())
note("ended")
machine.kill()
sys.exit(code)
"""


def command(name: str, place: Path) -> list[str]:
    """The command of a played build."""
    return [sys.executable, "-c", BUILD, name, str(place)]


def marked(mark: str) -> dict[int, str]:
    """The running processes with this mark, also those whose parents have died."""
    found = {}
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                variables = (entry / "environ").read_bytes().split(b"\0")
                if wanted in variables and is_running(int(entry.name)):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = words.decode("utf-8", "replace")[:200]
    return found


def children(pid: int) -> list[int]:
    """The children of a process."""
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]
    return []


def events(place: Path) -> list[list[str]]:
    """The words of each line that the played builds have noted: what, name, process."""
    log = place / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@dataclass
class PlayedFarm:
    """A scheduler and workers, which a test can start, kill and start again."""

    place: Path
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    more: Mapping[str, str] = field(default_factory=dict)
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    url: str = "tls://127.0.0.1:0"
    # Words before the command of each worker that is started.
    within: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.keys = key_making.make(self.place / "farm-keys")

    @property
    def environment(self) -> dict[str, str]:
        quick = {
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "3s",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
        }
        return {**os.environ, **quick, MARK: self.mark, **self.more}

    def start_scheduler(self) -> None:
        """Starts the scheduler, again at the same port."""
        settings = SchedulerSettings(self.url, str(self.keys.directory))
        self.scheduler = self._start("scheduler", settings.encode(), subprocess.PIPE)
        assert self.scheduler.stdout is not None
        self.url = self.scheduler.stdout.readline().decode().strip()
        assert self.url, "the scheduler did not start"

    def start_worker(self, count: int = 1, slots_: int = 1, **more: object) -> None:
        """Starts a worker, or several with one nanny process."""
        given = {"resources": slots.resources(slots_, kvm=False), **more}
        member = FarmMember(self.url, str(self.keys.directory), slots=slots_, count=count, **given)  # type: ignore[arg-type]
        self.workers.append(self._start("worker", member.encode(), subprocess.DEVNULL))

    def _start(self, what: str, settings: str, output: int) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-P", "-m", f"particle_os.fleet.farm.member.{what}", settings]
        argv = [*(self.within if what == "worker" else ()), *argv]
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, env=self.environment,
            stderr=(self.place / f"{what}.log").open("ab"), start_new_session=True,
        )  # fmt: skip

    def dask_workers(self) -> list[int]:
        """The processes of the workers themselves, below their nannies."""
        found = [child for nanny in self.workers for child in children(nanny.pid)]
        return [pid for pid in found if "spawn_main" in marked(self.mark).get(pid, "")]

    def stop(self) -> None:
        """Ends all processes of the farm, and waits until none is left."""
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        for pid in marked(self.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        until(lambda: not marked(self.mark))


@contextmanager
def played_farm(
    place: Path, workers: int = 2, url: str = "tls://127.0.0.1:0"
) -> Iterator[PlayedFarm]:
    """A farm with a scheduler and workers for as long as the context lasts."""
    farm = PlayedFarm(place, url=url)
    with ExitStack() as stack:
        stack.callback(farm.stop)
        farm.start_scheduler()
        for _ in range(workers):
            farm.start_worker()
        yield farm


# Builds the images of a farm in a process of its own: the address, the keys, the place, the names.
CLIENT = """\
import json, sys
from functools import partial
from pathlib import Path
from particle_os.errors import Interrupted, ParticleError
from particle_os.fleet import views
from particle_os.fleet.farm.client import places
from particle_os.fleet.farm.client.here import FarmHere
from particle_os.fleet.farm.client.there import FarmElsewhere
from particle_os.fleet.farm.address import FarmAddress
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.fleet.order import Order
from particle_os.jobs.plan import BuildOptions
from particle_os.system import interrupt
from tests.played_cache import options_here
from tests.played_farm import command
on, keys, place, *names = sys.argv[1:]
Order.command = lambda self, *more: [*command(self.name, Path(place)), *more]
shared = options_here(Path(place))
if not shared:
    # The played builds are on this machine, wherever the scheduler is.
    FarmElsewhere.assignment = FarmHere.assignment
    FarmElsewhere._lock = ""
    FarmElsewhere.deliver = FarmHere.deliver
interrupt.install()
orders = [Order(name, Path(place, f"{name}.yml"), BuildOptions(**shared)) for name in names]
ends = {}
try:
    view = views.JsonView(sys.stderr)
    places.run(FarmAddress.parse(on), FarmKeys(Path(keys)), orders, view, ends,
               jobs=None, fail_fast=False, lines=False)
except (Interrupted, ParticleError) as error:
    print(json.dumps({"error": str(error)}), flush=True)
finally:
    for end in ends.values():
        shown = {"name": end.order.name, "status": end.status, "why": str(end.error or "")}
        print(json.dumps(shown), flush=True)
"""


def start_client(farm: PlayedFarm, *names: str, on: str | None = None) -> subprocess.Popen[str]:
    """Starts a client that builds these images on a farm, by default on `farm`."""
    argv = [sys.executable, "-c", CLIENT, on or farm.url, str(farm.keys.directory)]
    return subprocess.Popen(
        [*argv, str(farm.place), *names], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=(farm.place / "client.log").open("ab"), env=farm.environment, text=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip


def statuses(client: subprocess.Popen[str]) -> dict[str, str]:
    """Waits for the end of a client; returns the status of each image."""
    lines = [json.loads(line) for line in client.communicate()[0].splitlines()]
    found = [line for line in lines if "name" in line]
    assert len({line["name"] for line in found}) == len(found), "an image has ended twice"
    errors = [line["error"] for line in lines if "error" in line]
    return dict.fromkeys(["error"] * len(errors), "; ".join(errors)) | {
        line["name"]: line["status"] for line in found
    }

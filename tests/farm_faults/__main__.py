"""`make farm-faults SEED=1 N=20`: faults against a farm; the exit status is 1 after a loss.

A fault is drawn from SEED and its number, so `SEED=1 FIRST=7 N=1` repeats the seventh. The outcomes
are added to OUT/farm-faults/SEED.jsonl; without FIRST, a campaign goes on after them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..orphan import planted_orphan
from ..played_cache import CachedFarm
from ..played_farm import MARK, PlayedFarm, events, marked, start_client, statuses
from ..waiting import until

# A process that is left so many seconds after the end is an orphan.
ORPHAN_SECONDS = 5.0
STOP_SECONDS = 6.0
# The command lines of keepers, of builds, and of what builds start.
KEEPER, BUILD = "member.keeper", "particle_os build"
NAMES = ("a", "b", "c", "bad-3", "d")
WANTED = {"a": "passed", "b": "passed", "c": "passed", "bad-3": "failed", "d": "passed"}


@dataclass
class Outcome:
    """A fault, the second at which it came, and what was lost."""

    number: int
    seed: str
    fault: str
    at: float
    attempts: int = 0
    seconds: float = 0.0
    losses: list[str] = field(default_factory=list)


class Trial:
    """A farm with two workers and a client, and a fault at a random moment."""

    def __init__(self, farm: CachedFarm, draw: random.Random) -> None:
        self.farm = farm
        self.draw = draw
        self.client: subprocess.Popen[str] | None = None

    def kill_worker(self) -> None:
        self._kill(self.farm.dask_workers())

    def kill_nanny(self) -> None:
        self._kill([nanny.pid for nanny in self.farm.workers])

    def kill_keeper(self) -> None:
        self._kill(self._of(KEEPER))

    def kill_build(self) -> None:
        self._kill(self._of(BUILD))

    def kill_scheduler(self) -> None:
        assert self.farm.scheduler is not None
        self.farm.scheduler.kill()
        self.farm.scheduler.wait()
        time.sleep(self.draw.uniform(0, 2))
        self.farm.start_scheduler()

    def kill_client(self) -> None:
        assert self.client is not None
        self.client.kill()

    def interrupt_client(self) -> None:
        assert self.client is not None
        self.client.send_signal(self.draw.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))

    def stop_worker(self) -> None:
        """A worker hangs for longer than the scheduler waits."""
        for pid in self.farm.dask_workers()[:1]:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def stop_scheduler(self) -> None:
        assert self.farm.scheduler is not None
        self.farm.scheduler.send_signal(signal.SIGSTOP)
        time.sleep(self.draw.uniform(0.5, STOP_SECONDS))
        self.farm.scheduler.send_signal(signal.SIGCONT)

    def end_nanny(self) -> None:
        """An administrator ends a worker."""
        self.draw.choice(self.farm.workers).terminate()

    def kill_two(self) -> None:
        self.kill_worker()
        time.sleep(self.draw.uniform(0, 1))
        self.draw.choice([self.kill_keeper, self.kill_worker, self.kill_build])()

    def _of(self, part: str) -> list[int]:
        return [pid for pid, words in marked(self.farm.mark).items() if part in words]

    def _kill(self, found: list[int]) -> None:
        if found:
            with suppress(ProcessLookupError):
                os.kill(self.draw.choice(sorted(found)), signal.SIGKILL)


FAULTS: dict[str, Callable[[Trial], None]] = {
    name: getattr(Trial, name)
    for name in (
        "kill_worker", "kill_nanny", "kill_keeper", "kill_build", "kill_scheduler", "kill_client",
        "interrupt_client", "stop_worker", "stop_scheduler", "end_nanny", "kill_two",
    )
}  # fmt: skip
# The builds that a fault may interrupt; each one begins again. Without a number: all of them.
MOST_AGAIN = {
    "kill_worker": 1, "kill_nanny": 1, "kill_keeper": 1, "kill_build": 1, "end_nanny": 1,
    "kill_two": 2,
}  # fmt: skip
# The faults that can lose the answer of a build that has ended: it is built again afterwards.
LOSES_ANSWERS = {*MOST_AGAIN, "kill_scheduler", "stop_worker"}
# The faults after which the user runs the command again.
OF_CLIENT = ("kill_client", "interrupt_client")


def drawn(seed: str, number: int) -> tuple[str, float, random.Random]:
    """A fault and its second, and the rest of the chance."""
    draw = random.Random(f"{seed}-{number}")
    return draw.choice(sorted(FAULTS)), round(draw.uniform(0, 3), 2), draw


def attempt(place: Path, seed: str, number: int) -> Outcome:
    """Runs one fault in an empty directory."""
    name, at, draw = drawn(seed, number)
    outcome = Outcome(number, seed, name, at)
    began = time.monotonic()
    farm = CachedFarm(place, more={"STEPS": "12"}, names=NAMES)
    with ExitStack() as stack:
        stack.callback(farm.stop)
        farm.start_scheduler()
        farm.start_worker()
        farm.start_worker()
        trial = Trial(farm, draw)
        client = trial.client = start_client(farm, *NAMES)
        until(lambda: events(place) or client.poll() is not None)
        time.sleep(outcome.at)
        FAULTS[name](trial)
        _check(outcome, farm, client)
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _check(outcome: Outcome, farm: CachedFarm, client: subprocess.Popen[str]) -> None:
    """Notes what is lost."""
    found = statuses(client)
    outcome.losses += [f"an orphan: {words}" for words in _orphans(farm)]
    if outcome.fault in OF_CLIENT:
        # A worker that the fault has ended is started by its nanny.
        found = statuses(start_client(farm, *NAMES))
        outcome.losses += [f"an orphan: {words}" for words in _orphans(farm)]
    noted = events(farm.place)
    outcome.attempts = sum(what == "began" for what, _, _ in noted)
    outcome.losses += losses(outcome.fault, found, noted)
    for name, status in found.items():
        if status == "passed" and not farm.is_whole(name):
            outcome.losses.append(f"the image {name} is not whole")


def losses(fault: str, found: dict[str, str], noted: list[list[str]]) -> list[str]:
    """The losses after a fault: a wrong end of an image, or the work of a build that has ended.

    A machine that has spoilt a build is no end: the build begins again on the other machine. Only
    after `kill_two` there may be no other machine, and one build may end as killed.
    """
    lost = []
    killed = [name for name, status in found.items() if status == "killed"]
    if fault == "kill_two" and len(killed) == 1:
        found = {**found, killed[0]: WANTED[killed[0]]}
    if found != WANTED:
        lost.append(f"ends: {found}")
    began = Counter(name for what, name, _ in noted if what == "began")
    twice = _overlapping if fault in LOSES_ANSWERS else _repeated
    lost += [f"never built: {name}" for name in NAMES if not began[name]]
    if fault not in OF_CLIENT:
        # The user who runs the command again builds all images again: the played ones need no time.
        lost += [f"built twice: {name}" for name in NAMES if twice(noted, name)]
        most = len(NAMES) + MOST_AGAIN.get(fault, len(NAMES))
        if began.total() > most:
            lost.append(f"{began.total()} attempts, and not {most}")
    return lost


def _repeated(noted: list[list[str]], name: str) -> bool:
    """Whether a build of an image has ended more than once."""
    return sum(what == "ended" for what, other, _ in noted if other == name) > 1


def _overlapping(noted: list[list[str]], name: str) -> bool:
    """Whether a build of an image has gone on to its end although another one had begun."""
    last = ""
    for what, other, pid in noted:
        if other == name and what == "began":
            last = pid
        elif other == name and pid != last:
            return True
    return False


def _orphans(farm: PlayedFarm) -> list[str]:
    """The processes of builds that are left when all builds have ended."""
    until_time = time.monotonic() + ORPHAN_SECONDS
    while True:
        parts = (KEEPER, BUILD, "sleep 1000", "orphan")
        found = [w for w in marked(farm.mark).values() if any(part in w for part in parts)]
        if not found or time.monotonic() > until_time:
            return found
        time.sleep(0.1)


def _finds_an_orphan(place: Path) -> bool:
    """A positive control: plants a process that no parent will end."""
    farm = PlayedFarm(place)
    planted_orphan({MARK: farm.mark})
    found = _orphans(farm)
    for pid in marked(farm.mark):
        os.kill(pid, signal.SIGKILL)
    return len(found) == 1


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", default="1")
    arguments.add_argument("--first", type=int)
    arguments.add_argument("--number", type=int, default=20)
    arguments.add_argument("--out", type=Path, default=Path("out"))
    given = arguments.parse_args()
    record = given.out / "farm-faults" / f"{given.seed}.jsonl"
    record.parent.mkdir(parents=True, exist_ok=True)
    done = len(record.read_text().splitlines()) if record.exists() else 0
    first = given.first or done + 1
    with _directory() as place:
        if not _finds_an_orphan(place):
            sys.exit("the campaign does not find an orphan that it has planted")
    lost = 0
    for number in range(first, first + given.number):
        with _directory() as place:
            outcome = attempt(place, given.seed, number)
        print(outcome, flush=True)
        with record.open("a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
        lost += bool(outcome.losses)
    print(f"seed {given.seed}: {given.number} faults, {lost} with losses")
    return 1 if lost else 0


class _directory:  # noqa: N801
    """A new directory with a cache of its own, which is removed."""

    def __enter__(self) -> Path:
        self._place = Path(tempfile.mkdtemp(prefix="particle-os-farm-"))
        os.environ["XDG_CACHE_HOME"] = str(self._place / "cache")
        return self._place

    def __exit__(self, *details: object) -> None:
        shutil.rmtree(self._place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

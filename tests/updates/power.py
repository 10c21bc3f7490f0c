"""Cuts the power of machines at random moments of an update, and of the return from it."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from particle_os.boot.attempt import Undecided, boot_once
from particle_os.boot.request import BootRequest
from particle_os.boot.updates import scripts
from particle_os.boot.updates.boots import UpdateBoots, Worker
from particle_os.report.progress import Progress
from particle_os.vm.argv import Disk

from tests.updates.good import Update
from tests.updates.run import request_of

# So many attempts may miss or end without a verdict, for each one that counts.
SPARE = 3


class PowerCut:
    """Kills QEMU so many seconds after `begin`, unless the context ends before."""

    def __init__(self, seconds: float, kill: Callable[[], bool]) -> None:
        self.hit = False
        self._kill = kill
        self._timer = threading.Timer(seconds, self._strike)

    def _strike(self) -> None:
        self.hit = self._kill()

    def begin(self) -> None:
        self._timer.start()

    def __enter__(self) -> PowerCut:
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        if self._timer.ident is not None:
            self._timer.join()


@dataclass(frozen=True)
class OrderedBoot:
    """A boot: its deployment, the seconds from order to end, and whether QEMU was killed."""

    deployment: str
    seconds: float
    hit: bool = False


class _Machines:
    """The boots on one overlay, which may lose their power."""

    def __init__(self, update: Update, place: Path) -> None:
        progress = Progress([])
        update_disk = Disk(update.disk, "raw", "update", read_only=True)
        self.request = replace(request_of(update, place, progress), more_disks=(update_disk,))
        self.place = place
        self.boots = UpdateBoots(
            self.request,
            place / "boots",
            lambda step: self.request.evidence,
            lambda _: nullcontext(),
        )
        self.boots.begin()
        self.number = 0

    def boot(self, script: str, power: float | None = None) -> OrderedBoot:
        """Boots, and runs a script.

        With `power`, QEMU is killed so many seconds after the system has got the order. Raises
        Undecided when QEMU or the host fails otherwise, and AssertionError when the boot does not
        pass.
        """
        ran, ordered = "", 0.0

        def work(worker: Worker) -> None:
            nonlocal ran, ordered
            ran = worker.run("the version that runs", scripts.RUNNING).strip()
            ordered = time.monotonic()
            if power is not None:
                cut.begin()
            worker.run("the order", script)

        self.number += 1
        request: BootRequest = self.boots.request_of(
            replace(self.request.evidence, directory=self.place / f"evidence-{self.number}"),
            "parent",
            "upgrade-failed",
            work,
            0,
        )
        request.evidence.clear()
        directory = self.place / f"machine-{self.number}"
        cut = PowerCut(power or 0.0, kill_children)
        try:
            with cut:
                found = boot_once(request, self.boots.overlay, directory, shut_down=True)
        except Undecided:
            if not cut.hit:
                raise
        else:
            if not cut.hit and not found.passed:
                raise AssertionError(f"{found.status}: {found.message}")
        return OrderedBoot(ran, time.monotonic() - ordered, cut.hit)


def kill_children() -> bool:
    """Kills the QEMU that this process runs; returns whether there was one."""
    killed = False
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, children.read_text().split()):
            with suppress(OSError):
                if "qemu" in os.readlink(f"/proc/{pid}/exe"):
                    os.kill(pid, signal.SIGKILL)
                    killed = True
    return killed


class _Campaign:
    """Cuts the power at moments between an order and the end of the machine that has got it."""

    def __init__(
        self, update: Update, moments: random.Random, machines: Callable[[Update, Path], _Machines]
    ) -> None:
        self.update = update
        self.moments = moments
        self.machines = machines
        # The seconds from each order to the end of the machine.
        self.seconds: dict[str, float] = {}

    def measure(self) -> None:
        """Lets a machine take the update and return from it, without a cut."""
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="power-") as place:
            machines = self.machines(self.update, Path(place))
            for script in (scripts.TAKE, scripts.RETURN):
                self.seconds[script] = machines.boot(script).seconds

    def attempt(self, script: str) -> tuple[str, bool] | None:
        """A line about a cut, and whether the version before it runs; None if the moment missed.

        Raises as `_Machines.boot`.
        """
        moment = self.moments.uniform(0, self.seconds[script])
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="power-") as place:
            machines = self.machines(self.update, Path(place))
            if script == scripts.RETURN:
                machines.boot(scripts.TAKE)
            before = machines.boot(script, moment)
            if not before.hit:
                return None
            try:
                after = machines.boot("true")
            except AssertionError as error:
                raise AssertionError(f"power lost after {moment:.1f} s: {error}") from error
        told = f"power lost after {moment:.1f} s: {after.deployment[:12]} runs"
        return told, before.deployment == after.deployment


def cut(
    update: Update,
    number: int,
    moments: random.Random,
    machines: Callable[[Update, Path], _Machines] = _Machines,
) -> int:
    """Cuts the power `number` times; returns 0 if a version has booted each time, else 1.

    A moment that misses the machine does not count, nor does a failure of QEMU or the host.
    """
    update.finish()
    campaign = _Campaign(update, moments, machines)
    campaign.measure()
    same: list[bool] = []
    for _ in range(number * SPARE):
        if len(same) == number:
            break
        try:
            found = campaign.attempt((scripts.TAKE, scripts.RETURN)[len(same) % 2])
        except AssertionError as error:
            print(f"{len(same)}: {error}", flush=True)
            return 1
        except Undecided as error:
            print(f"{len(same)}: not counted: {error.brief}", flush=True)
            continue
        if found is None:
            print(f"{len(same)}: not counted: the machine had ended before", flush=True)
            continue
        print(f"{len(same)}: {found[0]}", flush=True)
        same.append(found[1])
    others = len(same) - sum(same)
    print(f"{len(same)} times: the same version {sum(same)} times, the other one {others} times")
    return 0 if len(same) == number else 1

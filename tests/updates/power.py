"""Cuts the power of machines at random moments of an update, and of the return from it."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from particle_os.boot.attempt import Undecided, boot_once
from particle_os.boot.request import BootRequest
from particle_os.boot.updates import scripts
from particle_os.boot.updates.boots import UpdateBoots, Worker
from particle_os.report.progress import Progress
from particle_os.vm.argv import Disk

from tests.updates.good import Update
from tests.updates.run import request_of

# The longest wait after an order, in seconds. Taking an update and the end of the system take about
# a minute on an emulated machine, and what comes later is the next boot.
LONGEST = 100.0


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

    def boot(self, script: str, power: float | None) -> str:
        """Boots, runs a script, and returns the deployment that ran.

        With `power`, QEMU is killed so many seconds after the system has passed.
        """
        ran = ""

        def work(worker: Worker) -> None:
            nonlocal ran
            ran = worker.run("the version that runs", scripts.RUNNING).strip()
            if power is not None:
                threading.Timer(power, kill_children).start()
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
        with suppress(Undecided) if power is not None else nullcontext():
            found = boot_once(request, self.boots.overlay, directory, shut_down=True)
            if power is None and not found.passed:
                raise AssertionError(f"{found.status}: {found.message}")
        return ran


def kill_children() -> None:
    """Kills the QEMU that this process runs."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, children.read_text().split()):
            with suppress(OSError):
                if "qemu" in os.readlink(f"/proc/{pid}/exe"):
                    os.kill(pid, signal.SIGKILL)


def cut(update: Update, number: int, moments: random.Random) -> int:
    """Cuts the power `number` times; returns 1 if a machine did not boot afterwards, or 0."""
    update.finish()
    old = new = 0
    for attempt in range(number):
        script = (scripts.TAKE, scripts.RETURN)[attempt % 2]
        seconds = moments.uniform(0, LONGEST)
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="power-") as place:
            machines = _Machines(update, Path(place))
            if script == scripts.RETURN:
                machines.boot(scripts.TAKE, None)
            before = machines.boot(script, seconds)
            try:
                after = machines.boot("true", None)
            except AssertionError as error:
                print(f"{attempt}: power lost after {seconds:.1f} s: {error}", flush=True)
                return 1
        old, new = (old + 1, new) if before == after else (old, new + 1)
        print(f"{attempt}: power lost after {seconds:.1f} s: {after[:12]} runs", flush=True)
    print(f"{number} times: the same version {old} times, the other one {new} times")
    return 0

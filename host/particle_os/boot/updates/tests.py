"""The tests of updates: the upgrade from the parent with the return to it, and a bad update."""

from __future__ import annotations

import re
from collections.abc import Iterator

from particle_os.boot.observation.verdict import Verdict
from particle_os.boot.updates import scripts
from particle_os.boot.updates.boots import UpdateBoots, Worker, WorkFailed
from particle_os.boot.updates.scripts import DEPLOYMENT

COUNT = re.compile(r"[1-9]")


class _Versions:
    """The deployment that ran first, as the system named it, and the commit of the update."""

    def __init__(self, update: str = "") -> None:
        self.first = ""
        self.update = update

    def note(self, worker: Worker) -> None:
        """Notes the deployment that runs as the first one."""
        self.first = _running(worker)

    def must_be_first(self, worker: Worker) -> None:
        """Raises WorkFailed unless the first deployment runs again."""
        if (found := _running(worker)) != self.first:
            raise WorkFailed(f"the version that runs is {found}, not {self.first}")

    def must_be_update(self, worker: Worker) -> None:
        """Raises WorkFailed unless a deployment of the update runs."""
        found = _running(worker)
        if found.partition(".")[0] != self.update:
            raise WorkFailed(f"the version that runs is {found}, not the update {self.update}")


def _running(worker: Worker) -> str:
    """The deployment that runs. Raises WorkFailed."""
    found = worker.run("the version that runs", scripts.RUNNING).strip()
    if not DEPLOYMENT.fullmatch(found):
        raise WorkFailed("the system does not name the version that runs")
    return found


def upgrade(boots: UpdateBoots, commit: str) -> Iterator[Verdict]:
    """Boots the parent's system, then the update that it takes, and then the parent's again.

    `commit` is the checksum of the new version, which the machine must find and run. Yields the
    verdict on each boot, and ends after one that does not pass.
    """
    versions = _Versions(commit)

    def take(worker: Worker) -> None:
        versions.note(worker)
        worker.run("the files of the machine", scripts.MARK)
        new = worker.run("taking the update", scripts.TAKE).strip()
        if not DEPLOYMENT.fullmatch(f"{new}.0"):
            raise WorkFailed("taking the update: OSTree names no new commit")
        if new != versions.update:
            raise WorkFailed(f"taking the update: the machine found {new}, not {versions.update}")

    def go_back(worker: Worker) -> None:
        versions.must_be_update(worker)
        worker.run("the files of the machine", scripts.MARKED)
        worker.run("the order to return", scripts.RETURN)

    def look(worker: Worker) -> None:
        versions.must_be_first(worker)
        worker.run("the files of the machine", scripts.MARKED)

    boots.begin()
    first = boots.boot("parent", "upgrade-failed", "the parent's system", take)
    yield first
    if not first.passed:
        return
    second = boots.boot("upgrade", "upgrade-failed", "the new version", go_back, checked=True)
    yield second
    if second.passed:
        yield boots.boot("rollback", "rollback-failed", "the return to the parent", look)


def fallback(boots: UpdateBoots) -> Iterator[Verdict]:
    """Boots the image, gives it an update that is bad, and waits until the image runs again.

    Yields the verdict on each boot.
    """
    versions = _Versions()
    counted = 0

    def break_it(worker: Worker) -> None:
        nonlocal counted
        versions.note(worker)
        number = worker.run("the count of boots", scripts.COUNTED).strip()
        if not COUNT.fullmatch(number):
            raise WorkFailed("the image counts no boots of an update")
        counted = int(number)
        worker.run("making a bad update", scripts.BREAK)

    def look(worker: Worker) -> None:
        versions.must_be_first(worker)
        worker.run("the state after the return", scripts.STATE)

    boots.begin()
    first = boots.boot("bad-update", "fallback-failed", "the good version", break_it)
    yield first
    if not first.passed:
        return
    what = "the return from a bad update"
    second = boots.boot("fallback", "fallback-failed", what, look, checked=True, restarts=counted)
    # A restart by the test, because of GRUB's clock, takes one of the counted boots.
    starts = second.restarts + second.new_starts
    if second.passed and starts != counted:
        tried = f"GRUB started the bad update {starts} times, not {counted} times"
        second = second.model_copy(update={"status": "fallback-failed", "message": tried})
    yield second

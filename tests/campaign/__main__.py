"""`make faults SEED=1 N=20`: faults against real builds; the exit status is 1 after a loss.

A fault is drawn from SEED and its number, so `SEED=1 FIRST=7 N=1` repeats the seventh. The
outcomes are added to OUT/faults/SEED.jsonl; without FIRST, a campaign goes on after them. JOBS
trials run at a time. Without PARTICLE_OS_TEST_DIRECTORY everything else lies in a new directory in
/var/tmp, which is removed. With it, `--again` uses the wheel and the undisturbed builds of an
earlier run.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..vm.conftest import DIRECTORY, TOP, Account, install_wheel, make_account, make_tiny_base
from .campaign import attempt, make_reference
from .controls import undetected
from .processes import adopting
from .record import Record
from .trial import Reference


@dataclass(frozen=True)
class Campaign:
    """The faults to run, and the places for all files."""

    directory: Path
    seed: str
    record: Record
    numbers: Sequence[int]
    jobs: int
    again: bool
    tree: str

    def run(self) -> int:
        """Runs the faults; returns the number of jobs that have failed or found a loss."""
        if not self.again:
            install_wheel(self.directory)
            for note in self.directory.glob("*/reference.pickle"):
                note.unlink()
        # The first job makes the helper VM, which all jobs share.
        account = self.account(0)
        with adopting():
            control = account.directory / "control"
            if missed := undetected(account, self.reference(account), control):
                sys.exit(f"the checker does not find: {', '.join(missed)}")
        fork = multiprocessing.get_context("fork")
        workers = [fork.Process(target=self.work, args=(job,)) for job in range(self.jobs)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                worker.join()
        finally:
            for worker in workers:
                worker.terminate()
                worker.join()
        return sum(worker.exitcode != 0 for worker in workers)

    def account(self, job: int) -> Account:
        return make_account(self.directory, f"faults-{job}")

    def work(self, job: int) -> None:
        """Runs each fault of one job, in a process of its own."""
        account = self.account(job)
        with adopting():
            reference = self.reference(account)
            print(f"a build without a fault: {reference.warm.seconds:.1f} s", flush=True)
            lost = 0
            for number in self.numbers[job :: self.jobs]:
                place = account.directory / "trial"
                outcome = attempt(account, reference, place, self.seed, number)
                print(outcome, flush=True)
                self.record.add(replace(outcome, tree=self.tree))
                lost += bool(outcome.losses)
        sys.exit(1 if lost else 0)

    def reference(self, account: Account) -> Reference:
        note = account.directory / "reference.pickle"
        if note.exists():
            kept: Reference = pickle.loads(note.read_bytes())
            return kept
        made = make_reference(account, make_tiny_base(account), account.directory)
        note.write_bytes(pickle.dumps(made))
        return made


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    if kept := os.environ.get(DIRECTORY):
        directory = Path(kept)
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        yield directory
        return
    directory = Path(tempfile.mkdtemp(prefix="particle-os-", dir="/var/tmp"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _tree() -> str:
    """The commit of the tree; empty without git."""
    argv = ["git", "-C", str(TOP), "describe", "--always", "--dirty"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", default="1")
    arguments.add_argument("--first", type=int)
    arguments.add_argument("-n", "--number", type=int, default=20)
    arguments.add_argument("--jobs", type=int, default=1)
    arguments.add_argument("--out", type=Path, default=TOP / "out")
    arguments.add_argument("--again", action="store_true")
    given = arguments.parse_args()
    record = Record(given.out / "faults" / f"{given.seed}.jsonl")
    numbers = record.to_do(given.first, given.number)
    # A campaign that is ended unmounts what it has mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _directory() as directory:
        jobs = min(given.jobs, len(numbers))
        campaign = Campaign(directory, given.seed, record, numbers, jobs, given.again, _tree())
        failed = campaign.run()
    print(f"seed {given.seed}: {record.summary()}")
    if given.first is None:
        print(f"Go on with: make faults SEED={given.seed} N={given.number}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

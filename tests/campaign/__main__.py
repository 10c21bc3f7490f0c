"""`make faults SEED=1 N=20`: faults against real builds; the exit status is 1 after a loss.

A fault is drawn from SEED and its number, so `SEED=1 FIRST=7 N=1` repeats the seventh. Without
PARTICLE_OS_TEST_DIRECTORY everything lies in a new directory in /var/tmp, which is removed. With
it, `--again` uses the wheel and the undisturbed builds of an earlier run.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from ..vm.conftest import DIRECTORY, install_wheel, make_account, make_tiny_base
from .campaign import attempt, make_reference
from .controls import undetected
from .processes import adopting


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--first", type=int, default=1)
    arguments.add_argument("-n", "--number", type=int, default=20)
    arguments.add_argument("--again", action="store_true")
    given = arguments.parse_args()
    kept = os.environ.get(DIRECTORY)
    directory = Path(kept or tempfile.mkdtemp(prefix="particle-os-", dir="/var/tmp"))
    numbers = range(given.first, given.first + given.number)
    # A campaign that is ended unmounts what it has mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with adopting():
            return _campaign(directory, str(given.seed), numbers, again=given.again)
    finally:
        if kept is None:
            shutil.rmtree(directory, ignore_errors=True)


def _campaign(directory: Path, seed: str, numbers: range, *, again: bool) -> int:
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    if not again:
        install_wheel(directory)
    account = make_account(directory, "faults")
    note = account.directory / "reference.pickle"
    if again and note.exists():
        reference = pickle.loads(note.read_bytes())
    else:
        reference = make_reference(account, make_tiny_base(account), account.directory)
        note.write_bytes(pickle.dumps(reference))
    print(f"a build without a fault: {reference.seconds:.1f} s", flush=True)
    if missed := undetected(account, reference, account.directory / "control"):
        print(f"the checker does not find: {', '.join(missed)}")
        return 1
    lost = 0
    for number in numbers:
        outcome = attempt(account, reference, account.directory / "trial", seed, number)
        print(outcome, flush=True)
        lost += bool(outcome.losses)
    print(f"{len(numbers)} faults, {lost} with losses")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

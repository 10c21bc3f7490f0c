"""Breaks updates and checks each verdict; or cuts the power of machines that update.

`make broken-updates RUNS=10` writes the results to docs/broken-updates.md. `make broken-updates
POWER=50` kills QEMU at random moments of an update and of the return from it; each time, one of the
two versions must boot.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.updates import good
from tests.updates.good import Update
from tests.updates.mutations import MUTATIONS, Mutation
from tests.updates.power import cut
from tests.updates.run import verdict_of

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs/broken-updates.md"
HEAD = """\
# Broken updates and their verdicts

`make broken-updates` breaks a good update in each of these ways, tests it several times, and
compares the verdict with the right one. The good update is in the table, too: a verdict other than
`passed` is then a false failure. Nothing of this table is written by hand.

| update | step | right verdict | given in |
| --- | --- | --- | --- |
"""


def attempt(mutation: Mutation, update: Update) -> str | None:
    """Tests a broken copy; returns None, or the wrong verdict."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="broken-update-") as place:
        broken = update.copied(Path(place) / "copy")
        mutation.change(broken)
        broken.finish()
        found = verdict_of(broken, Path(place), mutation.test, mutation.timeout)
    right = (found.step, found.status) == (mutation.step, mutation.status)
    if right and mutation.says in found.message:
        return None
    return f"{found.step}: {found.status}: {found.message}"


def write_page(seen: dict[str, str]) -> None:
    """Writes the page; `seen` has the last columns by mutation."""
    old = PAGE.read_text().splitlines() if PAGE.exists() else []
    lines = []
    for name, mutation in MUTATIONS.items():
        start = f"| {name} | {mutation.step} | {mutation.status} |"
        known = (line for line in old if line.startswith(start))
        lines.append(
            f"{start} {seen[name]} |" if name in seen else next(known, f"{start} not tried |")
        )
    PAGE.write_text(HEAD + "\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="how often to run each mutation")
    parser.add_argument("--only", default="", help="run only mutations with one of these names")
    parser.add_argument("--power", type=int, default=0, help="how often to cut the power instead")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument(
        "--update",
        nargs=3,
        metavar=("DISK", "ARCHIVE", "KEY"),
        help="an update that exists: disk, archive, and gpg's directory",
    )
    parser.add_argument("--program", nargs="+", default=[str(TOP / ".venv/bin/particle-os")])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="updates-") as place:
        if arguments.update:
            update = good.unpacked(*map(Path, arguments.update))
        else:
            update = good.build(arguments.program, Path(place))
        if arguments.power:
            moments = random.Random(arguments.seed)
            return cut(update, arguments.power, moments)
        wrong = 0
        seen = {}
        for name, mutation in MUTATIONS.items():
            if arguments.only and name not in arguments.only.split():
                continue
            found = [attempt(mutation, update) for _ in range(arguments.runs)]
            faults = [each for each in found if each is not None]
            print(f"{name:<28} {len(found) - len(faults)}/{len(found)}", *faults, flush=True)
            seen[name] = f"{len(found) - len(faults)} of {len(found)}"
            wrong += len(faults)
    write_page(seen)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

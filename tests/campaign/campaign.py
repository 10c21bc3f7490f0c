"""Runs seeded faults against real builds, and lists the promises that did not hold."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..vm.conftest import Account
from .checker import losses, losses_of_next
from .processes import bury, descendants
from .table import FAULTS, Fault
from .trial import RECIPE, Build, Place, Reference, Trial, copy, make_place


@dataclass(frozen=True)
class Outcome:
    """The end of one trial; `seed` includes the number of the fault."""

    seed: str
    name: str
    moment: str
    status: int | None
    next_status: int | None
    losses: Sequence[str]
    seconds: float

    def __str__(self) -> str:
        end = f"exit {self.status}, then {self.next_status}, {self.seconds:.0f} s"
        lines = [f"{self.seed}: {self.name}; {self.moment}: {end}"]
        return "\n".join([*lines, *(f"    LOSS: {loss}" for loss in self.losses)])


def make_reference(account: Account, base: Path, directory: Path) -> Reference:
    """Builds both sets without a fault. The cache then has the helper, the base, and `old`."""
    first, second = (make_place(account, directory / name) for name in ("first", "second"))
    recipes = {word: _recipe(account, directory, base, word) for word in ("old", "new")}
    # A saved state of the helper VM saves a boot.
    for name in ("helpers", "warm"):
        if (account.cache / name).exists():
            shutil.copytree(account.cache / name, first.cache / name)
    subprocess.run(["chown", "-R", f"{account.uid}:{account.gid}", first.cache], check=True)
    _build(first, recipes["old"])
    copy(first.cache, second.cache)
    build = _build(second, recipes["new"])
    return Reference(
        old=first.output,
        early=first.cache,
        new=second.output,
        cache=second.cache,
        recipe=recipes["new"],
        course=build.events,
        seconds=build.seconds,
    )


def _recipe(account: Account, directory: Path, base: Path, word: str) -> Path:
    path = directory / f"{word}.yml"
    account.write(path.with_suffix(".data"), f"{word}\n" * (2 << 20))
    return account.write(path, RECIPE.format(base=base, word=word))


def _build(place: Place, recipe: Path) -> Build:
    build = Build.start(place, recipe)
    status = build.end()
    assert status == 0, f"a build without a fault has failed ({status}): {''.join(build.text)}"
    return build


def prepare(account: Account, reference: Reference, directory: Path) -> Place:
    """A place as a user has it: the cache knows the helper and the old build, which is published.

    The checkpoints of the new build are missing, so that its stages run.
    """
    place = make_place(account, directory)
    copy(reference.early, place.cache)
    copy(reference.old, place.output)
    return place


def draw(seed: str, number: int) -> Fault:
    """The fault with a number, counted from 1: a seed draws each fault once before it repeats."""
    faults = [fault for fault in FAULTS if fault.can_happen()]
    return random.Random(seed).sample(faults, len(faults))[(number - 1) % len(faults)]


def attempt(
    account: Account, reference: Reference, directory: Path, seed: str, number: int
) -> Outcome:
    """One fault, drawn from a seed and its number, and everything that must hold afterwards."""
    rng = random.Random(f"{seed}/{number}")
    fault, moment = draw(seed, number), reference.draw(rng)
    known = [pid for pid, _ in descendants(os.getpid())]
    started = time.monotonic()
    with ExitStack() as after:
        place = prepare(account, reference, directory)
        trial = Trial(place, reference, rng, ExitStack(), after)
        with trial.undo:
            fault.prepare(trial)
            trial.start()
            trial.wait_for(moment)
            if not (late := trial.running.is_over):
                fault.act(trial)
            status = trial.running.end()
        found = [*trial.losses, *_told(trial.running, fault, status)]
        found += losses(place, known, reference, status)
        found += _vanished(place, fault)
        build = Build.start(place, reference.recipe)
        next_status = build.end()
        found += [] if next_status == 0 else [f"the next build: {next_status}: {build.text[-12:]}"]
        found += losses_of_next(place, reference, known)
    bury()
    notes = [str(moment), *trial.notes, *(["after the end"] if late else [])]
    return Outcome(
        f"{seed}/{number}",
        fault.name,
        ", ".join(notes),
        status,
        next_status,
        found,
        time.monotonic() - started,
    )


def _vanished(place: Place, fault: Fault) -> Iterator[str]:
    if not fault.loses_output and not (place.output / "image.raw").exists():
        yield "the published image is gone"


def _told(build: Build, fault: Fault, status: int | None) -> Iterator[str]:
    """A line for each defect in the end of the disturbed build."""
    text = "".join(build.text)
    if status is None:
        yield "the build did not end"
    elif status not in fault.statuses:
        yield f"exit {status} is not explained by the fault: {text[-2000:]}"
    if "Traceback" in text:
        yield f"a traceback: {text[-2000:]}"

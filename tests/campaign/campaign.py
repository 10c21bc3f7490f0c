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
from .trial import RECIPE, Build, Course, Moment, Place, Reference, Trial, copy, make_place, stamps

# How many trials begin with a cache that has the helper only: such a build boots the helper VM,
# saves its memory, and unpacks the base.
COLD = 0.125


@dataclass(frozen=True)
class Outcome:
    """The end of one trial. `idle` means that the fault disturbed nothing.

    `error` has the lines with which the disturbed build explains its end, `tree` the commit.
    """

    seed: str
    number: int
    name: str
    moment: str
    idle: bool
    status: int | None
    next_status: int | None
    losses: Sequence[str]
    seconds: float
    error: Sequence[str] = ()
    tree: str = ""

    def __str__(self) -> str:
        end = f"exit {self.status}, then {self.next_status}, {self.seconds:.0f} s"
        idle = ", nothing disturbed" if self.idle else ""
        lines = [f"{self.seed}/{self.number}: {self.name}; {self.moment}{idle}: {end}"]
        return "\n".join([*lines, *(f"    LOSS: {loss}" for loss in self.losses)])


def make_reference(account: Account, base: Path, directory: Path) -> Reference:
    """Builds both sets without a fault, in the place of the trials.

    Saved memory of the helper VM only fits the paths that it was made with.
    """
    place = make_place(account, directory / "trial")
    recipes = {word: _recipe(account, directory, base, word) for word in ("old", "new")}
    store = _Store(directory / "reference")
    (place.cache / "helpers").mkdir(parents=True)
    copy(account.cache / "helpers", place.cache / "helpers")
    subprocess.run(["chown", "-R", f"{account.uid}:{account.gid}", place.cache], check=True)
    empty = store.keep("empty", place.cache)
    first = _build(place, recipes["old"])
    old, early = store.keep("old", place.output), store.keep("early", place.cache)
    second = _build(place, recipes["new"])
    return Reference(
        old=old,
        empty=empty,
        early=early,
        new=store.keep("new", place.output),
        cache=store.keep("cache", place.cache),
        recipe=recipes["new"],
        cold=Course(first.events, first.seconds),
        warm=Course(second.events, second.seconds),
        written=stamps(empty, early, old),
    )


class _Store:
    """A directory for copies of the directories of a place."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        shutil.rmtree(directory, ignore_errors=True)

    def keep(self, name: str, source: Path) -> Path:
        place = self._directory / name
        place.mkdir(parents=True)
        copy(source, place, link=True)
        return place


def _recipe(account: Account, directory: Path, base: Path, word: str) -> Path:
    path = directory / f"{word}.yml"
    account.write(path.with_suffix(".data"), f"{word}\n" * (1 << 18))
    return account.write(path, RECIPE.format(base=base, word=word))


def _build(place: Place, recipe: Path) -> Build:
    build = Build.start(place, recipe)
    status = build.end()
    assert status == 0, f"a build without a fault has failed ({status}): {''.join(build.text)}"
    return build


def prepare(account: Account, reference: Reference, directory: Path, cache: Path) -> Place:
    """A place as a user has it: the old build is published, and the cache has some content.

    The cache lacks the checkpoints of the new build, so its stages run.
    """
    place = make_place(account, directory)
    copy(cache, place.cache, link=True)
    copy(reference.old, place.output, link=True)
    return place


def draw(seed: str, number: int) -> Fault:
    """The fault with a number, counted from 1: a seed draws each fault once before it repeats."""
    faults = [fault for fault in FAULTS if fault.can_happen()]
    return random.Random(seed).sample(faults, len(faults))[(number - 1) % len(faults)]


def attempt(
    account: Account,
    reference: Reference,
    directory: Path,
    seed: str,
    number: int,
    fault: Fault | None = None,
) -> Outcome:
    """One fault, drawn from a seed and its number, and everything that must hold afterwards.

    A given fault replaces the drawn one.
    """
    rng = random.Random(f"{seed}/{number}")
    fault = fault or draw(seed, number)
    is_cold = rng.random() < COLD
    moment = (reference.cold if is_cold else reference.warm).draw(rng)
    known = [pid for pid, _ in descendants(os.getpid())]
    started = time.monotonic()
    with ExitStack() as after:
        cache = reference.empty if is_cold else reference.early
        place = prepare(account, reference, directory, cache)
        trial = Trial(place, reference, rng, ExitStack(), after)
        trial.notes += ["cold"] * is_cold
        _disturb(trial, fault, moment)
        status = trial.running.status
        found = [*trial.losses, *_told(trial.running, fault, status)]
        found += losses(place, known, reference, status)
        found += _vanished(place, fault)
        build = Build.start(place, reference.recipe)
        next_status = build.end()
        found += [] if next_status == 0 else [f"the next build: {next_status}: {build.text[-12:]}"]
        found += losses_of_next(place, reference, known)
    bury()
    return Outcome(
        seed=seed,
        number=number,
        name=fault.name,
        moment=", ".join([str(moment)] * (fault.act is not None) + trial.notes),
        idle=trial.idle,
        status=status,
        next_status=next_status,
        losses=found,
        seconds=round(time.monotonic() - started, 1),
        error=trial.running.errors(),
    )


def _disturb(trial: Trial, fault: Fault, moment: Moment) -> None:
    """Runs a build with a fault."""
    with trial.undo:
        fault.prepare(trial)
        trial.start()
        trial.undo.callback(trial.running.process.kill)
        if fault.act is not None:
            trial.wait_for(moment)
            if trial.running.is_over:
                trial.is_idle("the build was over")
            else:
                fault.act(trial)
        trial.running.end()


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

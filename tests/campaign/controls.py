"""Planted losses. The checker must find each of them before a campaign begins."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from ..orphan import planted_orphan
from ..vm.conftest import Account
from .checker import HIDDEN, losses_of_next, overwritten, processes_left
from .processes import descendants
from .table import flip
from .trial import Place, Reference, copy, make_place

Plant = Callable[[Place, Reference], object]
FILES: dict[str, Plant] = {
    "a working directory": lambda place, _: (place.cache / "work/tmp1").mkdir(parents=True),
    "a hidden directory": lambda place, _: (place.output / f"{HIDDEN}1").mkdir(),
    "a temporary file": lambda place, _: (place.temporary / "x").touch(),
    "a file in the home": lambda place, _: (place.home / "x").touch(),
    "half a checkpoint": lambda place, _: (place.cache / "checkpoints/new").mkdir(),
    "a flipped bit": lambda place, _: flip(place.output / "image.raw", 1 << 12),
    "the logs of a failure": lambda place, _: (place.output / "image.failed").mkdir(),
    "a missing image": lambda place, _: (place.output / "image.qcow2").unlink(),
    "a missing log": lambda place, _: (place.output / "image.log").unlink(),
    "an old image": lambda place, old: shutil.copy(old.old / "image.raw", place.output),
    "an old result": lambda place, old: shutil.copy(old.old / "image.result.json", place.output),
    "the old set": lambda place, old: shutil.copytree(old.old, place.output, dirs_exist_ok=True),
}


def undetected(account: Account, reference: Reference, directory: Path) -> list[str]:
    """The names of the planted losses that the checker does not find."""
    missed = [] if _finds_a_process() else ["a process"]
    missed += [] if _finds_a_write(reference) else ["a write"]
    known = [pid for pid, _ in descendants(os.getpid())]
    place = _undisturbed(account, reference, directory)
    assert [*losses_of_next(place, reference, known)] == []
    for name, plant in FILES.items():
        place = _undisturbed(account, reference, directory)
        plant(place, reference)
        if not any(losses_of_next(place, reference, known)):
            missed.append(name)
    return missed


def _undisturbed(account: Account, reference: Reference, directory: Path) -> Place:
    place = make_place(account, directory)
    copy(reference.cache, place.cache, link=True)
    # Some plants write to these files.
    copy(reference.new, place.output)
    return place


def _finds_a_process() -> bool:
    known = [pid for pid, _ in descendants(os.getpid())]
    pid = planted_orphan()
    found = bool(processes_left(known, seconds=0))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return found


def _finds_a_write(reference: Reference) -> bool:
    """Whether the checker sees that a file which trials share has got another time."""
    path = next(path for path in reference.written if path.suffix != ".state")
    before = path.stat()
    os.utime(path)
    found = bool(overwritten(reference))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return found and not overwritten(reference)

"""The checks after a fault: no process, no file, the old set or the complete new one."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from .processes import descendants
from .trial import Place, Reference, stamps

RAW, QCOW2 = IMAGES = ("image.raw", "image.qcow2")
HIDDEN = ".particle-os-"
# A busy host needs time to tear a VM down; this only ends a hang.
GONE_SECONDS = 60.0
CHECKPOINT = {"disk.qcow2", "meta.json"}
# Entries of the cache that some builds make: the state of a failed stage, and saved memory, which
# is made again for another helper VM.
SOMETIMES = re.compile(r"checkpoints/[0-9a-f]{40}-failed(/.*)?|warm/[0-9a-f]{32}\.state")


def digest(path: Path) -> str:
    """The SHA-256 of a file; a file that has not changed since it was read is not read again."""
    now = path.stat()
    return _digest(path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


@functools.lru_cache(256)
def _digest(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def processes_left(known: Collection[int], seconds: float = GONE_SECONDS) -> list[str]:
    """A line for each process below this one that is still there; `known` ones do not count."""
    end = time.monotonic() + seconds
    while left := [(p, n) for p, n in descendants(os.getpid()) if p not in known]:
        if time.monotonic() > end:
            return [f"the process {pid} ({name}) is left" for pid, name in left]
        time.sleep(0.1)
    return []


def files_left(place: Place) -> list[str]:
    """A line for each file that no build may leave behind."""
    work = place.cache / "work"
    found = [path for path in work.iterdir() if path.name != ".lock"] if work.is_dir() else []
    if place.output.is_dir():
        found += [path for path in place.output.iterdir() if path.name.startswith(HIDDEN)]
    found += [*place.temporary.iterdir(), *place.home.iterdir()]
    return [f"{path.relative_to(place.directory)} is left" for path in found]


def strangers(place: Place, reference: Reference) -> list[str]:
    """A line for each file of the cache that an undisturbed build does not make.

    Checkpoints have other keys when the helper VM was made again; these must be whole.
    """
    new = _names(place.cache) - _names(reference.cache)
    if _digests(place.cache / "helpers") != _digests(reference.cache / "helpers"):
        states = [path for path in place.cache.glob("checkpoints/*") if _is_whole(path)]
        new -= {str(p.relative_to(place.cache)) for s in states for p in (s, *s.iterdir())}
    return [f"cache: {name} is left" for name in sorted(new) if not SOMETIMES.fullmatch(name)]


def _digests(directory: Path) -> dict[str, str]:
    """The SHA-256 of each file below a directory that is no lock."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(directory)): digest(path) for path in files}


def _is_whole(checkpoint: Path) -> bool:
    return {path.name for path in checkpoint.iterdir()} == CHECKPOINT


def overwritten(reference: Reference) -> list[str]:
    """A line for each file of the reference that a build wrote to; a trial shares these files.

    A build replaces a file by a new one, and never writes to a file of the cache or of a set.
    """
    now = stamps(reference.empty, reference.early, reference.old)
    changed = [path for path, found in reference.written.items() if now.get(path) != found]
    return [f"{path} was written in its place" for path in changed]


def _names(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*")}


def which_set(output: Path, reference: Reference) -> Literal["none", "old", "new"] | None:
    """The set of files that a directory holds; None when it is neither set as a whole."""
    files = {path.name: path for path in output.glob("*") if path.is_file()}
    if not files:
        return "none"
    if all(_same(reference.old / name, path) for name, path in files.items()) and (
        files.keys() == {path.name for path in reference.old.iterdir()}
    ):
        return "old"
    if files.keys() != {path.name for path in reference.new.iterdir()} or not _agrees(output):
        return None
    return "new" if _same(reference.new / RAW, output / RAW) and _holds_raw(output) else None


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and digest(one) == digest(other)


def _holds_raw(output: Path) -> bool:
    """Whether the qcow2 image holds the raw disk; qemu-img writes its bytes in no fixed order."""
    argv = ["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", RAW, QCOW2]
    return subprocess.run(argv, cwd=output, check=False).returncode == 0


def _agrees(output: Path) -> bool:
    """Whether the result lists the published images."""
    result = json.loads((output / "image.result.json").read_bytes())
    told = {image["path"]: image["sha256"] for image in result["artifacts"]}
    return told == {name: digest(output / name) for name in IMAGES}


def wrong_sums(output: Path) -> list[str]:
    """The complaint of `sha256sum -c`, if any; a set in transition has no wrong line."""
    sums = output / "SHA256SUMS"
    if not sums.exists() or not [n for n in sums.read_text().splitlines() if n[:1] != "#"]:
        return []
    argv = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    done = subprocess.run(argv, cwd=output, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [f"sha256sum: {done.stdout.strip()}"]


def in_transition(output: Path) -> bool:
    """Whether a killed publication waits for the next build to finish it."""
    return (output / f"{HIDDEN}publication").is_dir()


def losses(
    place: Place, known: Collection[int], reference: Reference, status: int | None = 0
) -> Iterator[str]:
    """A line for each loss after a build that ended with this exit status.

    After a SIGKILL of the controller the next start removes its files. A publication that was
    killed or that failed (exit status 5) may be waiting for the next build.
    """
    yield from processes_left(known)
    yield from wrong_sums(place.output)
    waits = status in (-9, 5) and in_transition(place.output)
    transaction = f"out/{HIDDEN}publication is left"
    if status != -9:
        yield from (line for line in files_left(place) if not (waits and line == transaction))
    found = which_set(place.output, reference)
    if status in (2, 3, 4, 5) and found == "new" and not in_transition(place.output):
        yield f"exit {status}, although the new set is published"
    if not waits and found is None:
        names = sorted(path.name for path in place.output.iterdir())
        yield f"the output is neither the old nor the new set: {names}"


def losses_of_next(place: Place, reference: Reference, known: Collection[int]) -> Iterator[str]:
    """A line for each loss after the undisturbed build that follows."""
    yield from losses(place, known, reference)
    if (found := which_set(place.output, reference)) != "new":
        yield f"the next build has published the {found} set"
    others = [path.name for path in place.output.iterdir() if path.is_dir()]
    yield from (f"the directory {name} is left" for name in others if name[:1] != ".")
    yield from strangers(place, reference)
    yield from overwritten(reference)

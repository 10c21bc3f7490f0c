"""Checkpoints: the scratch disk as it was after each stage, kept for the next build.

A checkpoint is a qcow2 overlay over the one before it, in a directory named by its key. The key
covers all that can change its content: everything that the key before it covers, and the stage.
A build continues after the longest known prefix of its keys. What the network had to give is in
no key; stages that read it are believed for a limited time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from particle_agent.contract.decode import encode
from particle_agent.stages import Stage

from particle_os.system.checksum import file_sha256

# Grows when the way in which a scratch disk is made changes, other than by the agent.
FORMAT = 1
DISK, META = "disk.qcow2", "meta.json"
FAILED = "-failed"
# Options of a stage that cannot change what a stage that succeeded has done.
WITHOUT_EFFECT = ("name", "when", "timeout")


@dataclass(frozen=True)
class Meta:
    """What is known of a checkpoint; `size` in bytes, times in seconds since 1970.

    `parent` is the `id` of the checkpoint below. Keys do not tell that: a stage that was refreshed
    has another content under the same key.
    """

    id: str
    parent: str | None
    label: str
    network: bool
    created: float = field(default_factory=time.time)
    size: int = 0
    modified_ns: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A kept scratch disk."""

    key: str
    disk: Path
    meta: Meta


def keys(root: Sequence[object], name: str, stages: Iterable[Stage]) -> list[str]:
    """The key of the unpacked base (of which `root` tells everything), then one a stage.

    The recipe's name is part of the keys of the stages that use it, and of those after them.
    """
    made = [hashlib.sha256(json.dumps([FORMAT, *root]).encode()).hexdigest()[:40]]
    for stage in stages:
        options = {k: v for k, v in encode(stage).items() if k not in WITHOUT_EFFECT}
        parts = [made[-1], options, name if stage.uses_name else None]
        text = json.dumps(parts, sort_keys=True)
        made.append(hashlib.sha256(text.encode()).hexdigest()[:40])
    return made


def failed(key: str) -> str:
    """What names the disk at the failure of the stage that would have given `key`."""
    return f"{key}{FAILED}"


class Checkpoints:
    """The checkpoints of one user's cache, for one build.

    What this build stands on is locked, and nobody's eviction takes it away; `close` lets go of
    it, and waits for what is still being written.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True, mode=0o700)
        self._directory = directory
        self._held = ExitStack()
        # One, so that a checkpoint is there before those that stand on it.
        self._writer = ThreadPoolExecutor(1, "checkpoints")

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *details: object) -> None:
        self._writer.shutdown()
        self._held.close()

    def longest(self, wanted: Sequence[str], *, max_age: float) -> list[Checkpoint]:
        """The checkpoints of the longest prefix of `wanted` that can be built upon, locked.

        `max_age` is in seconds, and for those that the network took part in.
        """
        chain: list[Checkpoint] = []
        for key in wanted:
            with ExitStack() as lock:
                found = self._take(key, lock)
                if found is None or found.meta.parent != (chain[-1].meta.id if chain else None):
                    break
                if found.meta.network and time.time() - found.meta.created > max_age:
                    break
                # What is not built upon stays free, to be replaced.
                self._held.push(lock.pop_all())
            chain.append(found)
        # The ones below are needed longer than those above them.
        for checkpoint in reversed(chain):
            os.utime(checkpoint.disk.parent)
        return chain

    def settle(self) -> None:
        """Waits until what was given to `keep` is kept."""
        self._writer.submit(lambda: None).result()

    def _take(self, key: str, held: ExitStack) -> Checkpoint | None:
        place = self._directory / key
        try:
            lock = held.enter_context((place / META).open())
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # Another may have come into its place until it was locked.
            same = os.path.samestat(os.fstat(lock.fileno()), (place / META).stat())
        except OSError:
            return None
        return read(place) if same else None

    def keep(
        self,
        key: str,
        disk: Path,
        *,
        below: Checkpoint | None,
        label: str,
        network: bool,
        work: Path,
    ) -> Checkpoint:
        """Keeps a frozen disk, in the background; a crash leaves it whole or not at all.

        `disk` stays where it is, too; `work` is a directory on the same file system. `below` is
        what it stands on.
        """
        meta = Meta(uuid.uuid4().hex, below.meta.id if below else None, label, network)
        staging = work / f"checkpoint-{meta.id}"
        staging.mkdir(mode=0o700)
        os.link(disk, staging / DISK)

        def write() -> None:
            try:
                self._write(staging, key, below, meta)
            except OSError:
                pass  # The build does not need it; `work` goes away with what is there.

        self._writer.submit(write)
        return Checkpoint(key, disk, meta)

    def _write(self, staging: Path, key: str, below: Checkpoint | None, meta: Meta) -> None:
        if below is not None:
            parent = read(self._directory / below.key)
            if parent is None or parent.meta.id != below.meta.id:
                return  # Another build's took its place.
        with (staging / DISK).open("rb") as file:
            os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        sha256 = file_sha256(staging / DISK)
        meta = replace(meta, size=status.st_size, modified_ns=status.st_mtime_ns, sha256=sha256)
        with (staging / META).open("w") as text:
            json.dump(asdict(meta), text)
            text.flush()
            os.fsync(text.fileno())
        place = self._directory / key
        if evict(place, into=staging.with_name(f"{staging.name}-old")):
            staging.rename(place)


def read(place: Path) -> Checkpoint | None:
    """The checkpoint in the directory `place`; None when there is none, or it is not whole."""
    try:
        meta = Meta(**json.loads((place / META).read_text()))
        status = (place / DISK).stat()
    except (OSError, ValueError, TypeError):
        return None
    if (status.st_size, status.st_mtime_ns) != (meta.size, meta.modified_ns):
        return None
    return Checkpoint(place.name, place / DISK, meta)


def evict(place: Path, *, into: Path) -> bool:
    """Moves a checkpoint away at once, to be removed there; False when a build stands on it."""
    if not place.exists():
        return True
    try:
        with (place / META).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            place.rename(into)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        shutil.rmtree(place, ignore_errors=True)
        return True
    shutil.rmtree(into, ignore_errors=True)
    return True


def intact(checkpoint: Checkpoint) -> bool:
    """Whether the disk still has the content that was kept."""
    try:
        return file_sha256(checkpoint.disk) == checkpoint.meta.sha256
    except OSError:
        return False

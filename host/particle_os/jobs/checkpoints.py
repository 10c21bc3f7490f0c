"""Checkpoints: the scratch disk after each stage, kept for the next build.

A checkpoint is a qcow2 overlay over the checkpoint before it, in a directory named by its key. The
key covers everything that determines the content: the key before it, and the stage. A build
continues after the longest prefix of its keys that the cache has. No key covers data from the
network, so checkpoints of stages that use the network are reused for a limited time only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from particle_agent.contract.decode import encode
from particle_agent.stages import Stage

from particle_os.jobs.execution.claims import Claims
from particle_os.report.results import CLOCK_SLACK
from particle_os.system import publication
from particle_os.system.checksum import file_sha256
from particle_os.system.regular_file import open_regular, read_regular
from particle_os.system.workspace import remove_directories

# Increase it when the host makes scratch disks differently. Keys cover changes of the agent.
FORMAT = 2
DISK, META, CLAIMS = "disk.qcow2", "meta.json", ".claims"
META_LIMIT = 1 << 16
# The SHA-256 of all other fields of the metadata.
DIGEST = "digest"
FAILED = "-failed"
# Options of a stage that do not influence the disk that a successful stage leaves.
WITHOUT_EFFECT = ("name", "when", "timeout")


@dataclass(frozen=True)
class Meta:
    """The metadata of a checkpoint; `size` in bytes, `created` in seconds since 1970.

    `recipe` is the name of the recipe whose build made it; others may use it, too.
    `parent` is the `id` of the checkpoint below. The key of the checkpoint below is not enough: a
    refreshed stage has new content under the same key.
    """

    id: str
    parent: str | None
    label: str
    network: bool
    created: float = field(default_factory=time.time)
    size: int = 0
    modified_ns: int = 0
    sha256: str = ""
    recipe: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A kept scratch disk."""

    key: str
    disk: Path
    meta: Meta


def keys(root: Sequence[object], name: str, stages: Iterable[Stage]) -> list[str]:
    """The key of the unpacked base, followed by the key after each stage.

    `root` is everything that determines the unpacked base. The recipe's name is part of the keys
    from the first stage that uses it.
    """
    made = [hashlib.sha256(json.dumps([FORMAT, *root]).encode()).hexdigest()[:40]]
    for stage in stages:
        options = {k: v for k, v in encode(stage).items() if k not in WITHOUT_EFFECT}
        parts = [made[-1], options, name if stage.uses_name else None]
        # Keep the order of mappings: a later pattern of `modes` outweighs an earlier one.
        text = json.dumps(parts)
        made.append(hashlib.sha256(text.encode()).hexdigest()[:40])
    return made


def failed(key: str) -> str:
    """The key of the disk that remains when the stage whose result has `key` fails."""
    return f"{key}{FAILED}"


class Checkpoints:
    """The checkpoints of the user's cache, as one build uses them.

    The checkpoints that this build uses are locked, so no process evicts them. The next checkpoint
    that this build makes is claimed, so that other builds wait for it. Leaving the context waits
    for checkpoints that are still being written, and releases the locks and the claim.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True, mode=0o700)
        self._directory = directory
        self._held = ExitStack()
        self._claims = self._held.enter_context(Claims(directory / CLAIMS))
        # One thread, so that a checkpoint is complete before the checkpoints above it.
        self._writer = ThreadPoolExecutor(1, "checkpoints")

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *details: object) -> None:
        self._writer.shutdown()
        self._held.close()

    def longest(self, wanted: Sequence[str], *, max_age: float) -> list[Checkpoint]:
        """Locks and returns the checkpoints of the longest usable prefix of the keys `wanted`.

        Checkpoints that contain data from the network are usable for `max_age` seconds.
        """
        chain: list[Checkpoint] = []
        for key in wanted:
            with ExitStack() as lock:
                found = self._take(key, lock)
                if found is None or not _continues(chain, found, max_age):
                    break
                # Only usable checkpoints stay locked; this build may replace the others.
                self._held.push(lock.pop_all())
            chain.append(found)
        # Date the lower checkpoints last, so that pruning removes the upper ones first.
        for checkpoint in reversed(chain):
            os.utime(checkpoint.disk.parent)
        return chain

    def claim(self, key: str) -> bool:
        """Claims the checkpoint that this build makes next; returns False when another build does.

        `keep` drops the claim when the checkpoint is stored.
        """
        return self._claims.take(key)

    def drop_claim(self, key: str) -> None:
        """Drops a claim on a checkpoint that this build does not make."""
        self._claims.drop(key)

    def settle(self) -> None:
        """Waits until all disks that were given to `keep` are stored."""
        self._writer.submit(lambda: None).result()

    def _take(self, key: str, held: ExitStack) -> Checkpoint | None:
        place = self._directory / key
        try:
            lock = held.enter_context(open_regular(place / META))
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # Another build may have replaced the checkpoint before the lock was taken.
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
        recipe: str = "",
    ) -> Checkpoint:
        """Stores a frozen disk in the background; a crash never leaves an incomplete checkpoint.

        `disk` also stays in its place. `below` is the checkpoint that the disk is an overlay of.
        `work` is a directory on the file system of `disk` and of the cache.
        """
        parent = below.meta.id if below else None
        meta = Meta(uuid.uuid4().hex, parent, label, network, recipe=recipe)
        staging = work / f"checkpoint-{meta.id}"
        staging.mkdir(mode=0o700)
        os.link(disk, staging / DISK)

        def write() -> None:
            try:
                self._write(staging, key, below, meta)
            except OSError:
                pass  # The build does not need the checkpoint; `work` is removed with its files.
            finally:
                self._claims.drop(key)

        self._writer.submit(write)
        return Checkpoint(key, disk, meta)

    def stored(self, key: str) -> Checkpoint | None:
        """The checkpoint of a key; None when it is missing or damaged."""
        return read(self._directory / key)

    def adopt(self, staging: Path, key: str) -> bool:
        """Stores the complete checkpoint in the directory `staging` in place of an older one.

        Returns False, and leaves the older one, while a build uses it. Raises OSError.
        """
        place = self._directory / key
        if not evict(place, into=staging.with_name(f"{staging.name}-old")):
            return False
        publication.keep(staging, place)
        return True

    def _write(self, staging: Path, key: str, below: Checkpoint | None, meta: Meta) -> None:
        if below is not None:
            parent = read(self._directory / below.key)
            if parent is None or parent.meta.id != below.meta.id:
                return  # Another build has replaced the checkpoint below.
        with (staging / DISK).open("rb") as file:
            os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        sha256 = file_sha256(staging / DISK)
        meta = replace(meta, size=status.st_size, modified_ns=status.st_mtime_ns, sha256=sha256)
        with (staging / META).open("w") as text:
            text.write(sealed(meta))
            text.flush()
            os.fsync(text.fileno())
        place = self._directory / key
        if evict(place, into=staging.with_name(f"{staging.name}-old")):
            publication.keep(staging, place)


def known_prefix(directory: Path, wanted: Sequence[str], *, max_age: float) -> int:
    """The number of checkpoints that `Checkpoints.longest` would return; changes nothing."""
    chain: list[Checkpoint] = []
    for key in wanted:
        found = read(directory / key)
        if found is None or not _continues(chain, found, max_age):
            break
        chain.append(found)
    return len(chain)


def _continues(chain: Sequence[Checkpoint], found: Checkpoint, max_age: float) -> bool:
    """Whether a checkpoint is made over the last one of `chain`, and is not too old."""
    if found.meta.parent != (chain[-1].meta.id if chain else None):
        return False
    return not found.meta.network or is_recent(found.meta.created, max_age)


def is_recent(created: float, max_age: float) -> bool:
    """Whether a time, in seconds since 1970, is at most `max_age` seconds ago.

    A time in the future is not: what has it would never be too old.
    """
    return -CLOCK_SLACK <= time.time() - created <= max_age


def sealed(meta: Meta) -> str:
    """The metadata as the text of a file, with a digest over all of them."""
    fields = asdict(meta)
    return json.dumps({**fields, DIGEST: _digest(fields)})


def _digest(fields: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read(place: Path) -> Checkpoint | None:
    """The checkpoint in the directory `place`; None when it is missing or damaged."""
    try:
        fields = json.loads(read_regular(place / META, META_LIMIT))
        whole = fields.pop(DIGEST) == _digest(fields)
        meta = Meta(**fields)
        status = (place / DISK).stat()
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    if not whole:
        return None
    if (status.st_size, status.st_mtime_ns) != (meta.size, meta.modified_ns):
        return None
    # A time that is no number would never be too old.
    if not isinstance(meta.created, float) or not math.isfinite(meta.created):
        return None
    return Checkpoint(place.name, place / DISK, meta)


def evict(place: Path, *, into: Path) -> bool:
    """Renames a checkpoint to `into` and removes it; returns False when a build uses it."""
    if not place.exists():
        return True
    try:
        with open_regular(place / META) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            place.rename(into)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        remove_directories(place)
        return True
    remove_directories(into)
    return True


def in_use(place: Path) -> bool:
    """Whether a build uses the checkpoint in the directory `place`."""
    try:
        with open_regular(place / META) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def intact_prefix(chain: Sequence[Checkpoint]) -> int:
    """The number of checkpoints, the lowest first, that still have their content.

    The damaged checkpoint after them is removed for later builds; a build that runs on it goes on.
    """
    # hashlib releases the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for number, whole in enumerate(pool.map(intact, chain)):
            if not whole:
                # Without its metadata it counts for nothing, and the next writer replaces it.
                (chain[number].disk.parent / META).unlink(missing_ok=True)
                return number
    return len(chain)


def intact(checkpoint: Checkpoint) -> bool:
    """Whether the disk still has the content that was stored."""
    try:
        return file_sha256(checkpoint.disk) == checkpoint.meta.sha256
    except OSError:
        return False

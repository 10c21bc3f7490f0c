"""The use of shared caches in one build: what it takes before it begins, and what it gives."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from particle_os.base import suite
from particle_os.errors import ParticleError
from particle_os.jobs import checkpoints
from particle_os.jobs.checkpoints import DISK, META, Checkpoint
from particle_os.jobs.execution.job import Job
from particle_os.sandbox import helper
from particle_os.sharing.entry import EntryName, SharedEntry
from particle_os.sharing.shared_cache import SharedCache, SharedFiles, Unusable, of_options
from particle_os.system.checksum import file_sha256
from particle_os.system.workspace import cache_directory

MMDEBSTRAP = "mmdebstrap:"
TARBALL, PACKAGE = "base.tar.zst", "package.deb"
# The age of a shared helper and of a shared base. An older one lacks too many of Debian's updates.
AGE_SECONDS = 30 * 86400.0
# What an entry and its checkpoint both say.
FACTS = ("id", "parent", "network", "created")


@dataclass(frozen=True)
class Sharing:
    """The shared caches of a job. Whatever they have or do costs a note, and then local work."""

    job: Job
    cache: SharedCache
    # The packages that the build has used, by their SHA-256, but none that depends on a secret.
    packages: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Job) -> Sharing | None:
        """The sharing that the options of a job ask for. Raises UsageError for wrong keys."""
        options = job.plan.options
        found = of_options(
            options.cache_from, options.cache_keys, options.cache_to, options.cache_sign
        )
        return None if found is None else cls(job, found)

    def take_helper(self) -> None:
        """Takes the helper from a shared cache if the user's own cache has none."""
        template = self.job.plan.template
        if not self.reads or helper.find(template, cache_directory()) is not None:
            return
        with self._taken("helper", helper.key_of(template)) as made:
            if made is not None:
                helper.adopt(template, made, cache_directory())

    def take_base(self) -> None:
        """Takes the base of a suite from a shared cache if the user's own cache has none."""
        key = self._base_key()
        plan = self.job.plan
        if not self.reads or key is None or plan.base is not None or plan.options.rebuilds_base:
            return
        with self._taken("base", key) as made:
            if made is not None:
                suite.adopt(key, made / TARBALL, cache_directory())

    def take_checkpoints(self, wanted: Sequence[str]) -> None:
        """Takes the checkpoints that let the build begin later than with the user's own ones."""
        if not self.reads:
            return
        own = list(self._own(wanted))
        if len(own) == len(wanted):
            return
        chain = list(self._chain(wanted))
        if len(chain) <= len(own):
            return
        for number, found in enumerate(chain):
            if number < len(own) and own[number].meta.id == found.entry.id:
                continue
            if not self._take_checkpoint(found):
                return

    @property
    def reads(self) -> bool:
        return self.job.plan.options.cache and bool(self.cache.sources)

    def _own(self, wanted: Sequence[str]) -> Iterator[Checkpoint]:
        limit = self.job.plan.options.max_age
        count = checkpoints.known_prefix(cache_directory() / "checkpoints", wanted, max_age=limit)
        for key in wanted[:count]:
            if (found := self.job.checkpoints.stored(key)) is None:
                return
            yield found

    def _chain(self, wanted: Sequence[str]) -> Iterator[SharedFiles]:
        """The trusted entries of the longest prefix, each made over the one before."""
        below: str | None = None
        for key in wanted:
            found = self.cache.entry("checkpoint", key, self.job.note)
            if found is None:
                return
            if found.entry.parent != below:
                self._refuse(found, "it is made over another checkpoint")
                return
            limit = self.job.plan.options.max_age
            if found.entry.network and not self._is_recent(found, limit):
                return
            yield found
            below = found.entry.id

    def _is_recent(self, found: SharedFiles, limit: float) -> bool:
        """Whether an entry is at most `limit` seconds old; notes another one."""
        if checkpoints.is_recent(found.entry.created, limit):
            return True
        age = (time.time() - found.entry.created) / 3600
        self._refuse(found, f"it is {age:.0f} hours old, and may be {limit / 3600:.0f}")
        return False

    def _refuse(self, found: SharedFiles, why: str) -> None:
        entry = found.entry
        self.job.note(f"the {entry.kind} {entry.key[:12]} of {found.store.name} is not used: {why}")

    def _take_checkpoint(self, found: SharedFiles) -> bool:
        place = self.job.work.path / "shared-checkpoint"
        with self._fetched(found, place) as made:
            if made is None:
                return False
            read = checkpoints.read(made)
            facts = {name: getattr(found.entry, name) for name in FACTS}
            if read is None or {name: getattr(read.meta, name) for name in FACTS} != facts:
                self.job.note(f"the checkpoint {found.entry.key[:12]} is not what its entry says")
                return False
            return self.job.checkpoints.adopt(made, found.entry.key)

    @contextmanager
    def _taken(self, kind: EntryName, key: str) -> Iterator[Path | None]:
        found = self.cache.entry(kind, key, self.job.note)
        if found is None or not self._is_recent(found, AGE_SECONDS):
            yield None
            return
        with self._fetched(found, self.job.work.path / f"shared-{kind}") as made:
            yield made

    @contextmanager
    def _fetched(self, found: SharedFiles, place: Path) -> Iterator[Path | None]:
        """The directory with the files of an entry; None when they cannot be used."""
        entry = found.entry
        made: Path | None = place
        place.mkdir(mode=0o700)
        phase = f"take {entry.label or entry.kind} from the shared cache"
        # A stage may need hundreds of packages, which are no phases of the build.
        quiet = entry.kind == "package"
        try:
            with nullcontext() if quiet else self.job.progress.phase(phase):
                try:
                    found.fetch(place)
                except Unusable as error:
                    self._refuse(found, str(error))
                    made = None
            yield made
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def give(self, keys: Sequence[str]) -> None:
        """Gives helper, base, packages and checkpoints of a build that has passed its boot test.

        A build without the cache has left nothing in it; the cache has the work of other builds.
        """
        if self.cache.target is None or not self.job.plan.options.cache:
            return
        try:
            with self.job.progress.phase("give to the shared cache"):
                self._give_helper()
                self._give_base()
                self._give_packages()
                self._give_checkpoints(keys)
        except (OSError, ParticleError) as error:
            self.job.note(f"the shared cache {self.cache.target.name} does not get all: {error}")

    def _give_helper(self) -> None:
        template = self.job.plan.template
        made = helper.find(template, cache_directory())
        if made is None:
            return
        entry = SharedEntry(
            kind="helper",
            key=made.key,
            created=made.root.stat().st_mtime,
            label="helper",
            id=hashlib.sha256(made.identity().encode()).hexdigest(),
        )
        names = (*helper.FILES, helper.SUMS)
        self._give(entry, {name: made.root.parent / name for name in names})

    def _give_base(self) -> None:
        key = self._base_key()
        if key is None:
            return
        tarball = cache_directory() / "bases" / f"{key}.tar.zst"
        digest = suite.read_digest(tarball.with_name(f"{key}.sha256"))
        entry = SharedEntry(
            kind="base",
            key=key,
            created=tarball.stat().st_mtime,
            label="base",
            id=digest.removeprefix("sha256:"),
        )
        self._give(entry, {TARBALL: tarball})

    def _give_packages(self) -> None:
        for sha256, name in self.packages.items():
            place = cache_directory() / "packages" / f"{sha256}.deb"
            if self.cache.has_kept("package", sha256) is None and _is_package(place, sha256):
                entry = SharedEntry(
                    kind="package", key=sha256, created=time.time(), label=name[:200]
                )
                self.cache.keep(entry, {PACKAGE: place})

    def _give_checkpoints(self, keys: Sequence[str]) -> None:
        self.job.checkpoints.settle()
        # The first key is that of the unpacked base; the last stage leaves no checkpoint.
        for key in keys[:-1][: self.job.plan.private_from + 1]:
            found = self.job.checkpoints.stored(key)
            if found is None:
                return
            meta = found.meta
            entry = SharedEntry(
                kind="checkpoint",
                key=key,
                created=meta.created,
                label=meta.label,
                id=meta.id,
                parent=meta.parent,
                network=meta.network,
            )
            self._give(entry, {DISK: found.disk, META: found.disk.with_name(META)})

    def take_package(self, sha256: str, place: Path) -> bool:
        """Writes a package from a shared cache to a new file. Its content is not checked."""
        found = self.cache.entry("package", sha256, self.job.note)
        if found is None:
            return False
        directory = self.job.work.path / "shared-package"
        with self._fetched(found, directory) as made:
            if made is None or not (made / PACKAGE).exists():
                return False
            (made / PACKAGE).rename(place)
        return True

    def _give(self, entry: SharedEntry, files: dict[str, Path]) -> None:
        """Writes an entry, unless the cache has one with the same content."""
        if self.cache.has_kept(entry.kind, entry.key, entry.id) is None:
            self.cache.keep(entry, files)

    def _base_key(self) -> str | None:
        """The key of the base of a suite; None for other bases."""
        plan = self.job.plan
        if not plan.base_reference.startswith(MMDEBSTRAP):
            return None
        name = plan.base_reference.removeprefix(MMDEBSTRAP)
        architecture = plan.loaded.recipe.architecture
        return suite.suite_key(name, plan.options.mirror, architecture, plan.options.plain)


def _is_package(place: Path, sha256: str) -> bool:
    """Whether a package of the user's cache is whole."""
    try:
        return file_sha256(place) == sha256
    except OSError:
        return False


class SharedPackages:
    """The shared caches as a source of packages; `running` is the index of the running stage."""

    def __init__(self, sharing: Sharing, running: Callable[[], int]) -> None:
        self._sharing, self._running = sharing, running

    def take(self, sha256: str, place: Path) -> bool:
        return self._sharing.reads and self._sharing.take_package(sha256, place)

    def used(self, sha256: str, name: str) -> None:
        """Notes a package, unless something confidential may have opened its archive."""
        if self._running() < self._sharing.job.plan.private_from:
            self._sharing.packages[sha256] = name

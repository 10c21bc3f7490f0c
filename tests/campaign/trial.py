"""One trial: a build in directories of its own, which a fault disturbs, and the build after it."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ..vm.conftest import CONFINE, Account
from ..waiting import until
from .processes import descendants

SOURCE_DATE = "1700000000"
# Long, because a busy host is slow; this only ends a hang, which counts as a loss.
HANG_SECONDS = 1200.0
# A process that is left may keep the pipe open.
LISTEN_SECONDS = 2.0
SHORT_SECONDS = 0.02
RECIPE = """\
name: image
base-image: tar:{base}
stages:
  - type: apt
    update: false
    packages: [said-{word}]
  - type: files
    files:
      - path: /var/data
        source: {word}.data
  - type: qemu
    formats: [raw, qcow2]
    size: 80M
"""


@dataclass(frozen=True)
class Place:
    """The directories of one trial; `account` sees these only."""

    account: Account
    directory: Path

    @property
    def cache(self) -> Path:
        return self.account.cache

    @property
    def output(self) -> Path:
        return self.directory / "out"

    @property
    def temporary(self) -> Path:
        return self.directory / "tmp"

    @property
    def home(self) -> Path:
        return self.directory / "home"


def make_place(account: Account, directory: Path) -> Place:
    """Makes empty directories for a trial, in place of those of an earlier trial."""
    shutil.rmtree(directory, ignore_errors=True)
    for path in (directory, *(directory / name for name in ("home", "cache", "out", "tmp"))):
        path.mkdir(mode=0o755, parents=True)
        os.chown(path, account.uid, account.gid)
    environment = {
        **account.environment,
        "HOME": str(directory / "home"),
        "XDG_CACHE_HOME": str(directory / "cache"),
        "TMPDIR": str(directory / "tmp"),
        "SOURCE_DATE_EPOCH": SOURCE_DATE,
    }
    own = dataclasses.replace(account, directory=directory, environment=environment)
    return Place(own, directory)


def copy(source: Path, to: Path, *, link: bool = False) -> None:
    """Copies the content of a directory, with owners, times and holes, into another one.

    With `link` the files are hard links, which is quick: for files that no process writes to.
    """
    how = ["--link"] if link else ["--sparse=always", "--reflink=auto"]
    argv = ["cp", "-aL", *how, f"{source}/.", to]
    subprocess.run(argv, check=True)


@dataclass
class Build:
    """A build under way, and the events of its progress, each with its time."""

    process: subprocess.Popen[str]
    started: float
    events: list[tuple[float, str]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    seconds: float = 0.0
    status: int | None = None
    listener: threading.Thread | None = None

    @classmethod
    def start(
        cls,
        place: Place,
        recipe: Path,
        program: Sequence[str | Path] = (),
        options: Sequence[str] = (),
    ) -> Build:
        account = place.account
        argv = [sys.executable, CONFINE, account.uid, account.gid]
        argv += program or [account.venv / "bin/particle-os"]
        argv += ["build", recipe, "--output", place.output, "--no-boot-test", "--accel", "tcg"]
        process = subprocess.Popen(
            [*map(str, argv), "--progress", "json", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=place.home,
            env=account.environment,
            start_new_session=True,
        )
        build = cls(process, time.monotonic())
        build.listener = threading.Thread(target=build._listen, daemon=True)
        build.listener.start()
        return build

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text.append(line)
            if (label := _label(line)) is not None:
                self.events.append((time.monotonic() - self.started, label))

    def has_reached(self, label: str) -> bool:
        return any(found == label for _, found in list(self.events))

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def qemus(self) -> list[int]:
        """The QEMU processes of this build."""
        return [pid for pid, name in descendants(self.process.pid) if name.startswith("qemu-sys")]

    def end(self) -> int | None:
        """Waits for the end and returns the exit status; None if the build had to be killed."""
        try:
            self.status = self.process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.process.kill()
            self.process.wait()
        self.seconds = time.monotonic() - self.started
        if self.listener is not None:
            self.listener.join(LISTEN_SECONDS)
        return self.status

    def errors(self) -> list[str]:
        """The lines of standard error that are no events of the progress."""
        lines = [line.rstrip()[:300] for line in self.text if not line.startswith("{")]
        return lines[-20:]


def _label(line: str) -> str | None:
    """A name for the beginning of a phase or stage; None for other lines of the progress."""
    try:
        event = json.loads(line)
        kind = event["event"]
    except (ValueError, KeyError, TypeError):
        return None
    name = event.get("phase") or event.get("label")
    return f"{kind} {name}" if name and "started" in kind else None


@dataclass(frozen=True)
class Moment:
    """A moment of a build: some seconds after an event."""

    label: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.label} + {self.seconds:.2f} s"


@dataclass(frozen=True)
class Course:
    """The seconds at which each phase of an undisturbed build began, and the build's length."""

    phases: Sequence[tuple[float, str]]
    seconds: float

    def draw(self, rng: random.Random) -> Moment:
        """A moment of the course; each phase is as likely as the others.

        A phase that is over at once would only add weight to the moment after it.
        """
        ends = [at for at, _ in self.phases[1:]] + [self.seconds]
        lengths = [(label, end - at) for (at, label), end in zip(self.phases, ends, strict=True)]
        label, length = rng.choice([found for found in lengths if found[1] >= SHORT_SECONDS])
        return Moment(label, rng.random() * length)


@dataclass(frozen=True)
class Reference:
    """The results of two undisturbed builds.

    `old` and `new` are two sets of published files. `empty` is the cache before the first build,
    with the helper only; `early` and `cache` are the cache after each build. `cold` is the course
    of the first build, which boots the helper VM and unpacks the base; `warm` that of the second.
    `written` has the size and the time of each file of `empty`, `early` and `old`.
    """

    old: Path
    empty: Path
    early: Path
    new: Path
    cache: Path
    recipe: Path
    cold: Course
    warm: Course
    written: Mapping[Path, tuple[int, int]]


def stamps(*directories: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of each file in some directories. A saved state is dated at each use."""
    files = [p for each in directories for p in each.rglob("*") if p.is_file()]
    state = {path: path.stat() for path in files}
    return {
        path: (found.st_size, 0 if path.suffix == ".state" else found.st_mtime_ns)
        for path, found in state.items()
    }


@dataclass
class Trial:
    """A build that is to be disturbed.

    `undo` ends the fault before anything is checked; `after` cleans up after the trial. A fault
    changes `program` and `options` of the build, and appends to `notes` and `losses`.
    """

    place: Place
    reference: Reference
    rng: random.Random
    undo: ExitStack
    after: ExitStack
    program: Sequence[str | Path] = ()
    options: Sequence[str] = ()
    build: Build | None = None
    notes: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    idle: bool = False

    def is_idle(self, why: str) -> None:
        """Notes that the fault disturbs nothing."""
        self.idle = True
        self.notes.append(why)

    @property
    def running(self) -> Build:
        assert self.build is not None
        return self.build

    def start(self) -> None:
        self.build = Build.start(self.place, self.reference.recipe, self.program, self.options)

    def wait_for(self, moment: Moment) -> None:
        """Waits for a moment, or for the end of the build if the build never reaches it."""
        build = self.running
        until(lambda: build.is_over or build.has_reached(moment.label))
        if not build.is_over:
            time.sleep(moment.seconds)

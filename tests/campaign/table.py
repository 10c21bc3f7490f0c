"""The faults: what each does, when, and which exit statuses it explains."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .mirror import Manner, Mirror, served
from .trial import Place, Trial, copy

# Exit statuses (docs/ci.md): 0 published, 3 a stage failed, 5 the host failed.
FAILURES = frozenset({0, 3, 5})
# A disk that fails can also make the output directory unusable (2) or break the image (4).
DISK = FAILURES | {2, 4}
# System calls on files that each program makes.
CALLS = {
    "controller": "write read openat fsync rename mkdir unlink linkat link ftruncate".split(),
    "QEMU": "pwritev pwrite64 preadv pread64 fallocate openat ftruncate fdatasync".split(),
}
# The names of the files that a build writes into its hidden directory.
WRITTEN = ["SHA256SUMS", "SHA256SUMS.meanwhile", "manifest.json"]
WRITTEN += [f"image.{end}" for end in ("log", "raw", "qcow2", "result.json", "report.html")]
HIT_LOOKS = 80
TMPFS_BYTES = 3 << 30
# Parts of the cache that a build makes again without a mirror.
KEPT = ("checkpoints", "warm", "bases", "work")
LAUNCHER = """\
import sys
from particle_os.sandbox import agent
from particle_os.__main__ import main
agent.CALL = ({wrapper!r} + agent.CALL)
sys.exit(main())
"""
# Runs in the helper VM beside the agent.
ATTACK = """\
(busybox sleep {seconds:.2f}; {commands}) </dev/null >/dev/null 2>&1 &
"""


@dataclass(frozen=True)
class Fault:
    """A fault: `prepare` acts before the build starts, `act` at the drawn moment."""

    name: str
    act: Callable[[Trial], None] | None = None
    prepare: Callable[[Trial], None] = lambda trial: None
    statuses: Collection[int] = FAILURES
    needs: str = ""
    loses_output: bool = False

    def can_happen(self) -> bool:
        """Whether this host has what the fault needs: root's rights, or a program."""
        if self.needs == "root":
            return os.getuid() == 0
        return not self.needs or shutil.which(self.needs) is not None


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_controller(number: signal.Signals) -> Fault:
    def act(trial: Trial) -> None:
        _send(trial.running.process.pid, number)

    # When its work is done, the program leaves the signal's default effect: the end.
    statuses = {-number} if number == signal.SIGKILL else {128 + number, -number}
    return Fault(f"controller {number.name}", act, statuses=FAILURES | statuses)


def _interrupt_group(trial: Trial) -> None:
    """As a terminal does for Ctrl-C."""
    with suppress(ProcessLookupError):
        os.killpg(trial.running.process.pid, signal.SIGINT)


def _twice(trial: Trial) -> None:
    for _ in range(2):
        _send(trial.running.process.pid, signal.SIGTERM)
        time.sleep(trial.rng.random() / 2)


def _pause(pid: int, trial: Trial) -> None:
    _send(pid, signal.SIGSTOP)
    time.sleep(trial.rng.uniform(0.2, 6))
    _send(pid, signal.SIGCONT)


def _stop_controller(trial: Trial) -> None:
    _pause(trial.running.process.pid, trial)


def _stop_and_kill(trial: Trial) -> None:
    _send(trial.running.process.pid, signal.SIGSTOP)
    time.sleep(trial.rng.random())
    _send(trial.running.process.pid, signal.SIGKILL)


def _qemu(trial: Trial) -> int | None:
    """A QEMU of the build; waits for one, if the build has none at this moment."""
    build = trial.running
    while not build.is_over:
        if found := build.qemus():
            return trial.rng.choice(found)
        time.sleep(0.1)
    trial.is_idle("no QEMU was left")
    return None


def _signal_qemu(number: signal.Signals) -> Fault:
    def act(trial: Trial) -> None:
        if (pid := _qemu(trial)) is not None:
            _send(pid, number)

    return Fault(f"QEMU {number.name}", act)


def _stop_qemu(trial: Trial) -> None:
    if (pid := _qemu(trial)) is not None:
        _pause(pid, trial)


def _attack_agent(name: str, commands: str) -> Fault:
    def prepare(trial: Trial) -> None:
        seconds = trial.rng.uniform(0, 8)
        wrapper = ATTACK.format(seconds=seconds, commands=commands)
        launcher = trial.place.directory / "launcher.py"
        launcher.write_text(LAUNCHER.format(wrapper=wrapper))
        trial.program = [trial.place.account.venv / "bin/python", launcher]
        trial.notes.append(f"{seconds:.2f} s after each call")

    return Fault(f"agent {name}", prepare=prepare)


def _on_tmpfs(directory: Path, trial: Trial) -> None:
    """Moves a directory of the trial to a file system of its own."""
    keep = directory.with_name(f"{directory.name}.kept")
    directory.rename(keep)
    directory.mkdir()
    options = f"size={TMPFS_BYTES},mode=755,uid={trial.place.account.uid}"
    options += f",gid={trial.place.account.gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    trial.after.callback(subprocess.run, ["umount", "--lazy", directory], check=True)
    copy(keep, directory)
    shutil.rmtree(keep)


def _fill(directory: Path, trial: Trial) -> None:
    """Leaves some bytes of a file system free, until the next build."""
    filler = directory / "filler"
    room = trial.rng.choice([0, 4096, 1 << 16, 1 << 20, 3 << 20, 10 << 20])
    free = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
    with filler.open("wb") as file, suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(free - room, 4096))
    trial.notes.append(f"{room} bytes free")
    trial.undo.callback(filler.unlink, missing_ok=True)


def _full(name: str, directory: Callable[[Trial], Path]) -> Fault:
    return Fault(
        f"{name} full",
        act=lambda trial: _fill(directory(trial), trial),
        prepare=lambda trial: _on_tmpfs(directory(trial), trial),
        statuses=DISK,
        needs="root",
    )


def _inject(who: Literal["controller", "QEMU"], error: str) -> Fault:
    def act(trial: Trial) -> None:
        pid = trial.running.process.pid if who == "controller" else _qemu(trial)
        if pid is None:
            return
        call, number = trial.rng.choice(CALLS[who]), int(30 ** trial.rng.random())
        # A full disk stays full; another error passes. A directory on a full disk can still be
        # opened, to remove what is in it.
        last = "+" if error == "ENOSPC" and call != "openat" else ""
        rule = f"inject={call}:error={error}:when={number}{last}"
        trial.notes.append(rule)
        log = trial.place.directory / "strace"
        argv = ["strace", "-f", "-qq", "-o", log, "-e", f"trace={call}", "-e", rule]
        if call in ("read", "write"):
            # These calls also serve pipes and terminals, which have no disk that can fail.
            argv += [word for path in _files(trial.place) for word in ("-P", str(path))]
        tracer = subprocess.Popen([*argv, "-p", str(pid)], stderr=subprocess.DEVNULL)
        trial.undo.callback(_note_hits, log, trial)
        trial.undo.callback(tracer.wait)
        trial.undo.callback(tracer.terminate)
        if error == "EIO":
            # A traced program is slow: end the trace soon.
            _wait_for_hit(log, trial)
            tracer.terminate()

    return Fault(f"{who} {error}", act, statuses=DISK, needs="strace")


def _files(place: Place) -> Iterator[Path]:
    """The files of a build under way, and those that it is going to write."""
    for directory in (place.cache, place.output):
        yield from (path for path in directory.rglob("*") if path.is_file())
    for hidden in place.output.glob(".particle-os-*"):
        yield from (hidden / name for name in WRITTEN)
    for staging in (place.cache / "work").glob("*/checkpoint-*"):
        yield staging / "meta.json"


def _wait_for_hit(log: Path, trial: Trial) -> None:
    for _ in range(HIT_LOOKS):
        if trial.running.is_over or _hits(log):
            return
        time.sleep(0.1)


def _hits(log: Path) -> int:
    return log.read_text(errors="replace").count("(INJECTED)") if log.exists() else 0


def _note_hits(log: Path, trial: Trial) -> None:
    if hits := _hits(log):
        trial.notes.append(f"{hits} failed calls")
    else:
        trial.is_idle("no call failed")


def _vanish_cache(trial: Trial) -> None:
    cache = trial.place.cache
    name = trial.rng.choice([name for name in (*KEPT, ".") if (cache / name).exists()])
    trial.notes.append(f"{name} removed")
    shutil.rmtree(cache / name, ignore_errors=True)


def _vanish_output(trial: Trial) -> None:
    shutil.rmtree(trial.place.output, ignore_errors=True)


def _damage(trial: Trial) -> None:
    """Changes one bit of a file of the cache, and leaves the file's times as they are."""
    # A cold cache has the helper VM only.
    files = _not_empty(trial, KEPT) or _not_empty(trial, ["helpers"])
    path = trial.rng.choice(files)
    times = path.stat()
    _own(path)
    flip(path, trial.rng.randrange(times.st_size), trial.rng.randrange(8))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    trial.notes.append(str(path.relative_to(trial.place.cache)))


def _not_empty(trial: Trial, parts: Sequence[str]) -> list[Path]:
    files = [p for part in parts for p in sorted((trial.place.cache / part).rglob("*"))]
    return [p for p in files if p.is_file() and p.stat().st_size]


def _own(path: Path) -> None:
    """Replaces a file that all trials share by a copy."""
    made = path.with_name(f"{path.name}.own")
    subprocess.run(["cp", "-a", "--sparse=always", path, made], check=True)
    made.rename(path)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Changes one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def _bad_mirror(manner: Manner) -> Fault:
    """The helper VM is missing, and the mirror that serves its packages misbehaves."""

    def prepare(trial: Trial) -> None:
        helpers, kept = trial.place.cache / "helpers", trial.place.directory / "helpers"
        helpers.rename(kept)
        # From 1 kB to 10 MB, in the middle of an index or of a package.
        mirror = Mirror(manner, int(10 ** trial.rng.uniform(3, 7)))
        trial.notes.append(f"{mirror.left} bytes")
        if manner == "slow":
            seconds = trial.rng.uniform(0, 10)
            mirror.begun = lambda: threading.Timer(seconds, _interrupt, [trial]).start()
        url = trial.undo.enter_context(served(mirror))
        trial.options = ["--mirror", url, "--apt-proxy", "none"]
        trial.undo.callback(_put_back, kept, helpers, trial)

    statuses = {5, 130} if manner == "slow" else {5}
    return Fault(f"mirror {manner}", prepare=prepare, statuses=statuses)


def _interrupt(trial: Trial) -> None:
    _send(trial.running.process.pid, signal.SIGINT)


def _put_back(kept: Path, helpers: Path, trial: Trial) -> None:
    """Puts the helper VM back. Files of the disturbed build that are still there are noted."""
    left = [path.name for path in helpers.rglob("*") if path.suffix != ".lock"]
    if left:
        trial.losses.append(f"cache: of an unfinished helper VM {left} is left")
    shutil.rmtree(helpers, ignore_errors=True)
    kept.rename(helpers)


SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FAULTS = (
    *(_signal_controller(number) for number in SIGNALS),
    Fault("controller SIGINT to its group", _interrupt_group, statuses=FAILURES | {130}),
    Fault("controller SIGTERM twice", _twice, statuses=FAILURES | {143, -15}),
    Fault("controller SIGSTOP for a while", _stop_controller),
    Fault("controller SIGSTOP, then SIGKILL", _stop_and_kill, statuses=FAILURES | {-9}),
    *(_signal_qemu(number) for number in SIGNALS),
    Fault("QEMU SIGSTOP for a while", _stop_qemu),
    _attack_agent("SIGKILL", "busybox killall -KILL python3"),
    _attack_agent("SIGTERM", "busybox killall -TERM python3"),
    _attack_agent(
        "SIGSTOP for a while",
        "busybox killall -STOP python3; busybox sleep 3; busybox killall -CONT python3",
    ),
    _full("output", lambda trial: trial.place.output),
    _full("cache", lambda trial: trial.place.cache),
    _inject("controller", "EIO"),
    _inject("QEMU", "EIO"),
    _inject("controller", "ENOSPC"),
    _inject("QEMU", "ENOSPC"),
    Fault("cache vanished", _vanish_cache),
    Fault("output vanished", _vanish_output, statuses=FAILURES | {2}, loses_output=True),
    _bad_mirror("cut"),
    _bad_mirror("garbage"),
    _bad_mirror("slow"),
    Fault("cache damaged", prepare=_damage),
)

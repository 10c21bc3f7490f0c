"""Runs the stages of one request and tells the host what happens."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from particle_agent import verification
from particle_agent.agent.missing import missing
from particle_agent.apt import proxy as apt_proxy
from particle_agent.contract import wire
from particle_agent.contract.decode import decode, decode_any, encode
from particle_agent.contract.inspection import SERIAL, Inspection
from particle_agent.contract.options import duration
from particle_agent.disk.reading import Tree
from particle_agent.errors import EnvironmentFailed, NetworkError, StageError
from particle_agent.stages import ALL_STAGES, Stage
from particle_agent.target.limits import TimeUp, no_network, time_limit
from particle_agent.target.system_calls import MS_BIND, MS_NOATIME, mount, mounted
from particle_agent.target.target import COMMAND_SECONDS, ENVIRONMENT, Target, wait_for_disk
from particle_agent.verification import inspection

SCRATCH = Path("/scratch")
ROOT = SCRATCH / "target"
# linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int).
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
# The serial of the disk that the last stage writes.
OUTPUT = "output"
# Announces each file whose path comes on standard input, ended by a NUL, without waiting for it.
WILL_NEED = """\
import os, sys
for path in sys.stdin.buffer.read().split(b"\\0")[:-1]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        continue  # A stage has taken it away.
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
    os.close(file)
"""
# On a file system of the build's own.
APT_CONFIG = "/run/particle-os-apt.conf"
APT_DIRECTORIES = {"lists": "var/lib/apt/lists", "archives": "var/cache/apt/archives"}


class Channel:
    """The agent's side of the wire; safe to use from the heartbeat's thread."""

    def __init__(self, stream: IO[str], answers: IO[bytes]) -> None:
        self._stream = stream
        self._answers = answers
        self._lock = threading.Lock()

    def send(self, event: wire.AgentEvent) -> None:
        with self._lock:
            self._stream.write(wire.to_line(event))
            self._stream.flush()

    def output(self, text: str) -> None:
        self.send(wire.OutputLine(text=text[: wire.TEXT_LIMIT]))

    def note(self, text: str) -> None:
        self.send(wire.Notice(text=text[: wire.TEXT_LIMIT]))

    def disk_needed(self, size: int, content: int) -> None:
        self.send(wire.DiskNeeded(size=size, content=content))

    def disk_written(self, size: int) -> None:
        self.send(wire.DiskWritten(size=size))

    def packages(self, request: wire.PackageRequest) -> wire.PackagesAnswer:
        """Asks the host for packages, and waits until it has answered."""
        Path(wire.PACKAGES_REQUEST).write_text(json.dumps(encode(request)))
        self.send(wire.PackagesNeeded())
        return decode(wire.PackagesAnswer, self.receive())

    def receive(self) -> Any:
        """The host's next JSON object."""
        line = self._answers.readline()
        if not line:
            raise EnvironmentFailed("the host has gone")
        return json.loads(line)

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Sends a heartbeat every HEARTBEAT_SECONDS for as long as the context lasts."""
        stopped = threading.Event()

        def beat() -> None:
            while not stopped.wait(wire.HEARTBEAT_SECONDS):
                self.send(wire.Heartbeat())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()


def prepare_scratch() -> Path:
    """Makes the file system of the scratch disk, mounts it, and returns the empty target."""
    device = wait_for_disk("scratch", 0, 30.0)
    # No journal: the disk is thrown away unless every stage succeeds.
    subprocess.run(
        ["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=1", str(device)],
        check=True,
        timeout=120,
    )
    mount_scratch()
    ROOT.mkdir(mode=0o755)
    return ROOT


@contextmanager
def packages_disk() -> Iterator[Path]:
    """The host's disk of packages, mounted in the VM."""
    place = Path("/run/particle-os/packages")
    place.mkdir()
    device = str(wait_for_disk("packages", 0, 30.0))
    subprocess.run(["mount", "-o", "ro", device, str(place)], check=True, timeout=60)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=60)


def mount_scratch() -> bool:
    """Mounts the scratch disk, unless it is; tells whether it had to."""
    if SCRATCH.is_mount():
        return False
    device = wait_for_disk("scratch", 0, 30.0)
    SCRATCH.mkdir(exist_ok=True)
    mount(device, SCRATCH, "ext4", MS_NOATIME)
    return True


def read_ahead(root: Path) -> subprocess.Popen[bytes]:
    """Has the kernel read all files of the tree into memory; the process that sees to it.

    The last stage reads them all. Read one after the other, each would wait for the emulated disk;
    it is asked for many at once. Other file systems that are mounted in the tree are left out.
    """
    # In the order in which they probably lie on the disk.
    script = (
        "find \"$1\" -xdev -type f -printf '%i %p\\0' | sort --zero-terminated --numeric-sort |"
        " cut --zero-terminated --delimiter=' ' --fields=2- | python3 -I -S -c \"$2\""
    )
    return subprocess.Popen(
        ["sh", "-c", script, "sh", str(root), WILL_NEED],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _fits_into_memory() -> bool:
    """Whether what lies on the scratch disk takes less than half of the memory that is free."""
    disk, memory = os.statvfs(SCRATCH), Path("/proc/meminfo").read_text()
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    available = next(line for line in memory.splitlines() if line.startswith("MemAvailable:"))
    return used < int(available.split()[1]) * 1024 // 2


@contextmanager
def frozen_scratch() -> Iterator[None]:
    """All that was written is on the disk, and nothing is written for as long as it lasts."""
    descriptor = os.open(SCRATCH, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, FITHAW, 0)
    finally:
        os.close(descriptor)


@contextmanager
def mounted_for_chroot(root: Path) -> Iterator[None]:
    """The file systems that programs in the target expect; apt's caches lie outside of it."""
    kinds = {"proc": "proc", "sys": "sysfs", "dev": "devtmpfs", "dev/pts": "devpts"}
    kinds |= {"run": "tmpfs", "tmp": "tmpfs"}
    with ExitStack() as stack:
        for place, kind in kinds.items():
            (root / place).mkdir(parents=True, exist_ok=True)
            mode = "mode=1777" if place == "tmp" else ""
            stack.enter_context(mounted(kind, root / place, kind, data=mode))
        for name, place in APT_DIRECTORIES.items():
            outside = SCRATCH / "apt" / name
            (outside / "partial").mkdir(parents=True, exist_ok=True)
            (root / place).mkdir(parents=True, exist_ok=True)
            stack.enter_context(mounted(outside, root / place, flags=MS_BIND))
        yield


def kill_strays(root: Path) -> None:
    """Ends daemons that a stage left running inside the target."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            inside = os.readlink(entry / "root") == str(root)
        except OSError:
            continue
        if inside:
            os.kill(int(entry.name), signal.SIGKILL)


def run_stages(request: Mapping[str, object], channel: Channel) -> None:
    """Runs the stages of `request` in order; returns when all of them succeeded.

    Raises `_StageFailed` naming the stage's index. DecodeError tells of a malformed request.
    """
    descriptions = request["stages"]
    assert isinstance(descriptions, list)
    stages: list[Stage] = [
        decode_any(ALL_STAGES, item, f"stages[{i}]") for i, item in enumerate(descriptions)
    ]
    told = request["apt_proxy"]
    proxy = decode(wire.AptProxy, told) if told is not None else None
    values = _take_secrets(Path(wire.HELD))
    if mount_scratch() and _fits_into_memory():
        # Another VM has written it.
        read_ahead(ROOT)
    with mounted_for_chroot(ROOT):
        _check_needs(stages, Target(ROOT, channel, hostname=""), channel)
        for index, stage in enumerate(stages):
            # Its result depends on the name only if its key does.
            hostname = str(request["hostname"]) if stage.uses_name else ""
            source_date = request["source_date"]
            assert source_date is None or isinstance(source_date, int)
            target = Target(
                ROOT,
                channel,
                hostname=hostname,
                source_date=source_date,
                # The limit of the stage comes first.
                command_seconds=max(COMMAND_SECONDS, 2.0 * (stage.timeout or 0)),
            )
            target.apt_proxy = proxy
            target.ahead = partial(_do_ahead, stages[index + 1 :], target)
            channel.send(wire.StageStart(index=index))
            started = time.monotonic()
            try:
                secrets = {s.name: values[str(s.file)] for s in stage.secrets}
                with target.secrets(secrets):
                    run_stage(stage, target)
            except Exception as error:
                raise _StageFailed(index, error) from error
            finally:
                kill_strays(ROOT)
            seconds = round(time.monotonic() - started, 3)
            parts = tuple(
                wire.Part(name=name[:PART_CHARACTERS], seconds=round(taken, 3))
                for name, taken in target.timings.longest()
            )
            channel.send(wire.StageEnd(index=index, seconds=seconds, parts=parts))
            if request["checkpoints"] and index + 1 < len(stages):
                with frozen_scratch():
                    channel.send(wire.Frozen(index=index))
                    decode(wire.Continue, channel.receive())
    if request["verify"]:
        # Here, where the agent runs already: in an emulated VM each start of it takes seconds.
        verify(channel, OUTPUT)


def _do_ahead(stages: Sequence[Stage], target: Target) -> None:
    """Does what those stages can do ahead that find the system as it is now."""
    for stage in itertools.takewhile(lambda stage: stage.only_configures, stages):
        stage.ahead(target)


def _check_needs(stages: Sequence[Stage], target: Target, channel: Channel) -> None:
    found = list(missing(stages, target))
    if not found:
        return
    index, need = found[0]
    others = [f"{stages[i].label}: {other.message}" for i, other in found[1:]]
    channel.send(wire.StageStart(index=index))
    raise _StageFailed(index, StageError(need.message, hint=_sentence(need.hint), tail=others))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def verify(channel: Channel, serial: str) -> None:
    """Verifies the disk with this serial, which nobody writes from here on; tells what is wrong."""
    device = wait_for_disk(serial, 0, 30.0)
    channel.output("+ verify the disk")
    started = time.monotonic()
    # What was written to its partitions is not in the kernel's memory of the whole disk.
    argv = ["blockdev", "--flushbufs", "--setro", str(device)]
    subprocess.run(argv, check=True, timeout=60)
    verification.of_disk(device, channel.send)
    channel.send(wire.Verified(seconds=round(time.monotonic() - started, 3)))


def inspect(*, disk: bool) -> Inspection:
    """What is on the disk to be inspected, or else in the target."""
    if disk:
        return inspection.of_disk(wait_for_disk(SERIAL, 0, 30.0))
    mount_scratch()
    system = inspection.of_system(Tree(ROOT))
    return Inspection(size=0, table=None, partitions=(), boot_loaders=(), system=system)


def _take_secrets(directory: Path) -> dict[str, bytes]:
    """The secrets that the host has handed in, by keyed hash; from here on only we have them."""
    values = {}
    for path in directory.iterdir() if directory.is_dir() else ():
        values[path.name] = path.read_bytes()
        path.unlink()
    return values


def run_stage(stage: Stage, target: Target) -> None:
    """Runs one stage within its time, and without a network if it asks for that."""
    with ExitStack() as limits:
        if stage.network == "none":
            limits.enter_context(no_network())
        try:
            with time_limit(stage.timeout):
                stage.run(target)
        except NetworkError as error:
            if stage.network != "none":
                raise
            hint = "The stage has 'network: none'."
            raise StageError(error.message, hint=hint, tail=error.tail) from error
        except TimeUp as up:
            assert stage.timeout is not None
            raise StageError(
                f"the stage did not end within {duration(stage.timeout)}",
                hint="Raise its 'timeout', if it can need longer.",
                tail=tuple(target.tail),
            ) from up


def shell(proxy: wire.AptProxy | None) -> int:
    """Runs a root shell in the target on the streams of this process; returns its status.

    apt goes through the proxy there, if there is one.
    """
    mount_scratch()
    # Nothing is reported: the streams are the user's.
    target = Target(ROOT, Channel(sys.stderr, sys.stdin.buffer), hostname="target")
    program = "/bin/bash" if target.exists("/bin/bash") else "/bin/sh"
    environment = {**ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
    with mounted_for_chroot(ROOT), target.network():
        if proxy is not None:
            target.write(APT_CONFIG, apt_proxy.configuration(proxy))
            environment["APT_CONFIG"] = APT_CONFIG
        done = subprocess.run(["chroot", str(ROOT), program, "-l"], env=environment, check=False)
        kill_strays(ROOT)
    return done.returncode


class _StageFailed(Exception):
    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


# Characters of a line and lines of a tail; in JSON's ASCII, each takes at most 12 bytes.
TAIL_CHARACTERS = 160
TAIL_LINES = 20
MESSAGE_CHARACTERS = 1000
PART_CHARACTERS = 100


def failure(error: BaseException) -> wire.Failed:
    """The event that tells the host of `error`; it always fits a line of the wire."""
    index = error.index if isinstance(error, _StageFailed) else None
    cause = error.error if isinstance(error, _StageFailed) else error
    if isinstance(cause, StageError):
        return wire.Failed(
            kind="infrastructure" if isinstance(cause, EnvironmentFailed) else "stage",
            index=index,
            message=cause.message[:MESSAGE_CHARACTERS],
            hint=cause.hint[:MESSAGE_CHARACTERS] if cause.hint else None,
            tail=_cut(cause.tail),
        )
    full = isinstance(cause, OSError) and cause.errno == 28
    return wire.Failed(
        kind="infrastructure" if full else "internal",
        index=index,
        message=f"{type(cause).__name__}: {cause}"[:MESSAGE_CHARACTERS],
        hint="Give the scratch disk more room with --scratch-size." if full else None,
        tail=_cut("".join(traceback.format_exception(cause)).splitlines()),
    )


def _cut(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(line[:TAIL_CHARACTERS] for line in lines[-TAIL_LINES:])


def reserve_stdout() -> IO[str]:
    """The real standard output, for events only; prints of anything else go to standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return stream

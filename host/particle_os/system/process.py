"""Runs programs of the host: confined, with a deadline, and never longer than the controller."""

from __future__ import annotations

import collections
import ctypes
import io
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from particle_os.errors import DeadlineExceeded, InfrastructureError, NotEnoughSpace
from particle_os.system.confinement import FAILED, Confinement, environment
from particle_os.system.deadline import Deadline
from particle_os.system.interrupt import held_back
from particle_os.system.workspace import free_bytes

PR_SET_PDEATHSIG = 1  # prctl(2)
TAIL_LINES = 20
PIPE_BYTES = 1 << 16
# strerror(3) of ENOSPC and EDQUOT; Go writes them in lower case.
FULL = re.compile(r"(?i)no space left on device|disk quota exceeded")
TERMINATE_SECONDS = 5.0
VERSION_SECONDS = 30.0


# The confinement of a program that only reads its standard input and the files of the system.
NO_FILES = Confinement()


def dies_with_parent(signal_number: signal.Signals) -> Callable[[], None]:
    """Returns a function for a child to run before exec: the kernel signals it if its parent dies.

    See `child_of_ours`; this child is not confined.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal_number))
        if os.getppid() != parent:
            os._exit(FAILED)

    return prepare


def child_of_ours(
    signal_number: signal.Signals, within: Confinement, program: str
) -> Callable[[], None]:
    """Returns a function for a child to run before exec.

    The function confines the child, and lets the kernel signal it if its parent dies. The kernel
    sends the signal when the parent *thread* ends: call this from the main thread only.
    """
    begin = dies_with_parent(signal_number)
    confine = within.entry(program)

    def prepare() -> None:
        begin()
        try:
            confine()
        except OSError as error:
            os.write(2, f"particle-os: {program} cannot be confined: {error}\n".encode())
            os._exit(FAILED)

    return prepare


def wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Waits at most `seconds` for a process, and returns its status.

    subprocess polls only every 50 ms; this returns as soon as the process ends. Raises
    subprocess.TimeoutExpired.
    """
    if process.returncode is None:
        end = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(end, select.POLLIN)
            poll.poll(seconds * 1000)
        finally:
            os.close(end)
    return process.wait(0)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and the rest of its group with SIGTERM, then SIGKILL; reaps the process."""
    with held_back():
        if process.poll() is None:
            _signal_group(process.pid, signal.SIGTERM)
            try:
                wait(process, TERMINATE_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        # A group exists, under its number, until its last child ends.
        _signal_group(process.pid, signal.SIGKILL)
        process.wait(5.0)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


def _words(argv: Sequence[str | Path]) -> list[str]:
    return [str(part.absolute()) if isinstance(part, Path) else part for part in argv]


@contextmanager
def started(
    argv: Sequence[str | Path],
    *,
    within: Confinement = NO_FILES,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | int | None = None,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: int = subprocess.STDOUT,
    directory: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program for as long as the context lasts; its output comes through a pipe.

    A Path in `argv` becomes absolute: no program takes it for an option, a URL or a protocol. The
    program reaches only what `within` allows. Its environment is PATH, LC_ALL and `env`. Raises
    InfrastructureError when the program is not installed.
    """
    command = _words(argv)
    with ExitStack() as stack:
        with held_back():
            try:
                process = subprocess.Popen(
                    command,
                    stdin=stdin if stdin is not None else subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env=environment(env or {}),
                    cwd=directory,
                    start_new_session=True,
                    preexec_fn=child_of_ours(signal.SIGTERM, within, command[0]),
                )
            except FileNotFoundError as error:
                raise _missing(command[0]) from error
            stack.callback(end_group, process)
        yield process


def output(process: subprocess.Popen[bytes], deadline: Deadline) -> BinaryIO:
    """The output of a program to read, not past the deadline: it may print nothing for long."""
    assert process.stdout is not None
    return cast(BinaryIO, io.BufferedReader(_Piped(process.stdout.fileno(), deadline), PIPE_BYTES))


class _Piped(io.RawIOBase):
    def __init__(self, descriptor: int, deadline: Deadline) -> None:
        self._descriptor = descriptor
        self._deadline = deadline
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._poll.poll(self._deadline.remaining() * 1000):
            pass
        return os.readv(self._descriptor, [buffer])


class _Output:
    """The output of a program: its last lines; `log` receives each line as it comes."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self.reports_full_disk = False
        # The error that `log` has raised. The program must not wait for a reader that has failed.
        self.unlogged: OSError | None = None

    @property
    def tail(self) -> tuple[str, ...]:
        return tuple(self._tail)

    def read(self, pipe: IO[bytes]) -> None:
        for line in iter(lambda: pipe.readline(8192), b""):
            if text := line.decode("utf-8", "replace").rstrip():
                self._tail.append(text)
                self.reports_full_disk |= FULL.search(text) is not None
                self._keep(text)

    def _keep(self, text: str) -> None:
        if self.unlogged is None:
            try:
                self._log(text)
            except OSError as error:
                self.unlogged = error


@contextmanager
def begun(
    argv: Sequence[str | Path],
    *,
    deadline: Deadline,
    what: str,
    within: Confinement = NO_FILES,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Iterator[Callable[[], tuple[str, ...]]]:
    """Runs a program in the background; yields a function that waits for its end, as `run` does.

    An OSError of `log` is raised at the end of the program. The end of the context ends a program
    that still runs.
    """
    output = _Output(log)

    def finish() -> tuple[str, ...]:
        try:
            status = wait(process, deadline.remaining())
        except (subprocess.TimeoutExpired, DeadlineExceeded) as error:
            raise DeadlineExceeded(
                f"{what} took longer than {deadline.seconds:.0f} s", tail=output.tail
            ) from error
        reader.join(5)
        if output.unlogged is not None:
            raise output.unlogged
        if status != 0:
            if output.reports_full_disk:
                raise _no_space(what, within, output.tail)
            command = shlex.join(_words(argv))
            raise InfrastructureError(
                f"{what} failed (status {status}): {command[:1000]}", tail=output.tail
            )
        return output.tail

    with started(argv, within=within, env=env, stdin=stdin) as process:
        reader = threading.Thread(target=output.read, args=(process.stdout,), daemon=True)
        reader.start()
        yield finish


def run(
    argv: Sequence[str | Path],
    *,
    deadline: Deadline,
    what: str,
    within: Confinement = NO_FILES,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[str, ...]:
    """Runs a program to its end and returns its last lines of output.

    `log` receives each line as it comes. Raises InfrastructureError when the program is missing or
    fails (with a command to paste), NotEnoughSpace when it reports a full disk, DeadlineExceeded
    when it takes too long.
    """
    with begun(
        argv, deadline=deadline, what=what, within=within, env=env, stdin=stdin, log=log
    ) as finish:
        return finish()


def _no_space(what: str, within: Confinement, tail: tuple[str, ...]) -> NotEnoughSpace:
    """The error of a program that reports a full disk: the fullest place that it writes to."""
    free = {place: free_bytes(place) for place in within.writes if place.exists()}
    if not free:
        return NotEnoughSpace(f"{what}: a disk of the host is full", tail=tail)
    place = min(free, key=lambda place: free[place])
    return NotEnoughSpace(
        f"{what}: no space left in {place}; {free[place]} bytes are free",
        hint="Free more space, or use another file system: XDG_CACHE_HOME places the cache.",
        tail=tail,
    )


def capture(
    argv: Sequence[str | Path],
    *,
    deadline: Deadline,
    what: str,
    limit: int,
    within: Confinement = NO_FILES,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Runs a program to its end and returns its standard output, of at most `limit` bytes.

    Raises InfrastructureError when the program is missing, fails (with the end of its standard
    error) or prints more, DeadlineExceeded when it takes too long.
    """
    output, complaints = bytearray(), bytearray()

    def read(pipe: IO[bytes], kept: bytearray, most: int) -> None:
        while data := pipe.read1(65536):  # type: ignore[attr-defined]
            kept += data[: max(0, most - len(kept))]

    with started(argv, within=within, env=env, stderr=subprocess.PIPE) as process:
        pipes = ((process.stdout, output, limit + 1), (process.stderr, complaints, 65536))
        readers = [threading.Thread(target=read, args=pipe, daemon=True) for pipe in pipes]
        for reader in readers:
            reader.start()
        try:
            status = wait(process, deadline.remaining())
        except (subprocess.TimeoutExpired, DeadlineExceeded) as error:
            raise DeadlineExceeded(f"{what} took longer than {deadline.seconds:.0f} s") from error
        for reader in readers:
            reader.join(5)
    if status != 0:
        tail = complaints.decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
        raise InfrastructureError(f"{what} failed (status {status})", tail=tail)
    if len(output) > limit:
        raise InfrastructureError(f"{what} gave more than {limit} bytes")
    return bytes(output)


def _missing(program: str) -> InfrastructureError:
    return InfrastructureError(
        f"the program '{program}' is not installed",
        hint="Run 'particle-os doctor' to see what is missing.",
    )


def identity(program: str) -> str:
    """A text that changes with the installed version of a program, found without running it.

    Raises InfrastructureError when the program is not installed.
    """
    found = shutil.which(program)
    if found is None:
        raise _missing(program)
    file = Path(found).resolve()
    status = file.stat()
    return f"{file} {status.st_size} {status.st_mtime_ns}"


def version(program: str) -> str:
    """The first line of `program --version`. Raises InfrastructureError when it cannot run."""
    lines: list[str] = []
    deadline = Deadline.after(VERSION_SECONDS, f"{program} --version")
    run([program, "--version"], deadline=deadline, what=deadline.what, log=lines.append)
    return lines[0] if lines else ""


def processor_seconds(pid: int) -> float:
    """The seconds of processor time that a process has used (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waits(pid: int) -> Iterator[float]:
    """For how many seconds each thread of a process has waited for a processor.

    The kernel counts them in the second field of schedstat (Documentation/scheduler/sched-stats),
    unless it was built without.
    """
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):
            yield int(thread.read_text().split()[1]) / 1e9


def waited(pid: int) -> float:
    """For how many seconds the threads of a process have waited for a processor, in all."""
    return sum(waits(pid))

"""The serial console of a VM, through pexpect."""

from __future__ import annotations

import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect

from particle_os.errors import DeadlineExceeded, InfrastructureError, VmError, printable
from particle_os.system.confinement import Confinement, environment
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate
from particle_os.system.interrupt import held_back
from particle_os.system.process import NO_FILES, child_of_ours
from particle_os.system.regular_file import write_whole

# The kernel's message (kernel/panic.c), and the marker of our init programs.
DEATHS = (
    re.compile(rb"Kernel panic - not syncing[^\r\n]*"),
    re.compile(rb"PARTICLE-OS-FAILED[^\r\n]*"),
)
# Terminal control sequences (ECMA-48), which are removed from text for people.
ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]{0,400}(\x07|\x1b\\)|[@-Z\\-_a-z])")
PIECE_BYTES = 4096
SEARCH_BYTES = 8192
TYPED_LIMIT = 1 << 20
SLICE_SECONDS = 0.5
# The longest time that the kernel needs to end a killed program.
KILLED_SECONDS = 30.0
TRANSCRIPT_LIMIT = 32 << 20
TAIL_LINES, TAIL_BYTES = 15, 16384
# A guest that prints without end causes two events a second.
LINE_SECONDS = 0.5


class GuestPanic(VmError):
    """The guest's kernel panicked, or our init program failed."""


class QemuEnded(VmError):
    """QEMU ended; `status` is its exit status, or the negative number of the signal."""

    def __init__(self, status: int, tail: Sequence[str]) -> None:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        super().__init__(f"the VM died: QEMU {how}", tail=tail)
        self.status = status


@dataclass(frozen=True)
class ConsoleLog:
    """The file that receives the output of a console, and the gate that the output passes."""

    path: Path
    gate: Gate


class Transcript:
    """Keeps the console's output: in a file up to a limit, and its end in memory.

    All of it passes the gate of the log.
    """

    def __init__(self, log: ConsoleLog) -> None:
        self.gate = log.gate
        self._stream = log.gate.stream()
        self._file = log.path.open("ab", buffering=0)
        self._written = 0
        self._tail = b""

    def write(self, data: bytes) -> None:
        self._keep(self._stream.feed(data))

    def _keep(self, data: bytes) -> None:
        # The tail is limited in bytes, not in writes: firmware prints a character at a time.
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        room = TRANSCRIPT_LIMIT - self._written
        if room > 0:
            try:
                write_whole(self._file.fileno(), data[:room], self._file.name)
                self._written += len(data[:room])
            except OSError as error:
                raise VmError(
                    f"the log of the VM's console cannot be written: {error.strerror}"
                ) from error

    def flush(self) -> None:
        """Does nothing, since the file is not buffered; pexpect calls this after each write."""

    def close(self) -> None:
        if not self._file.closed:
            with self._file:
                self._keep(self._stream.flush())

    def tail(self, lines: int = TAIL_LINES) -> list[str]:
        """Returns the last lines, safe to show."""
        return last_lines(self._tail + self._stream.peek(), lines)

    def last_line(self) -> str:
        """Returns the last complete line, safe to show; "" without one."""
        lines = last_lines(self._tail.rpartition(b"\n")[0], 1)
        return lines[0] if lines else ""


def last_lines(output: bytes, lines: int) -> list[str]:
    """Returns the last lines of a console's output, safe to show; empty lines are left out."""
    text = ESCAPES.sub(b"", output).decode("utf-8", "replace").replace("\r", "\n")
    return [printable(line, 200) for line in text.split("\n") if line.strip()][-lines:]


class LastLine:
    """Passes on the last complete line of a transcript, at most once in LINE_SECONDS."""

    def __init__(self, transcript: Transcript, on_line: Callable[[str], None]) -> None:
        self._transcript = transcript
        self._on_line = on_line
        self._line = ""
        self._looked = float("-inf")

    def look(self) -> None:
        """Passes the line on if it is new. Call this after each look at the console."""
        now = time.monotonic()
        if now - self._looked < LINE_SECONDS:
            return
        self._looked = now
        line = self._transcript.last_line()
        if line and line != self._line:
            self._line = line
            self._on_line(line)


class Console:
    """Starts a program on a pseudo-terminal and waits for patterns in its guest's output.

    A kernel panic, the init's failure marker and the end of the program immediately abort any wait
    with a VmError that carries the transcript's tail. Only one thread uses a console at a time: the
    caller's thread, and after `watch` the watcher's thread.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        transcript: ConsoleLog,
        within: Confinement = NO_FILES,
    ) -> None:
        self.transcript = Transcript(transcript)
        try:
            self._child: Any = self._spawn(argv, directory, within)
        except pexpect.ExceptionPexpect as error:
            raise InfrastructureError(
                f"the program '{argv[0]}' cannot be started: {error}",
                hint="Run 'particle-os doctor' to see what is missing.",
            ) from error
        self._window = b""
        self._child.logfile_read = self.transcript
        self._child.delaybeforesend = None
        self._watcher: threading.Thread | None = None
        self._stop = threading.Event()
        self.death: VmError | None = None

    @staticmethod
    def _spawn(argv: Sequence[str], directory: Path, within: Confinement) -> Any:
        return pexpect.spawn(
            argv[0],
            list(argv[1:]),
            cwd=str(directory),
            env=environment({}),
            # Without echo, all output comes from the guest.
            echo=False,
            timeout=None,
            preexec_fn=child_of_ours(signal.SIGKILL, within, argv[0]),
            ignore_sighup=False,
        )

    @property
    def pid(self) -> int:
        return int(self._child.pid)

    def expect(self, pattern: str, deadline: Deadline) -> re.Match[bytes]:
        """Waits for `pattern` (a bytes regular expression, as text) and returns its match."""
        _, match = self.expect_any([re.compile(pattern.encode())], deadline)
        return match

    def expect_any(
        self, patterns: Sequence[re.Pattern[bytes]], deadline: Deadline
    ) -> tuple[int, re.Match[bytes]]:
        """Waits for the first of `patterns`; returns its index and match."""
        wanted = [*patterns, *DEATHS]
        while True:
            # Each piece is searched before the window moves on, so that no match is missed and
            # the memory for a flood is bounded (pexpect's own expect keeps all unmatched output).
            found = [
                (m.start(), i, m) for i, p in enumerate(wanted) if (m := p.search(self._window))
            ]
            if found:
                _, index, match = min(found, key=lambda item: item[:2])
                self._window = self._window[match.end() :]
                if index < len(patterns):
                    return index, match
                self._drain()
                text = match.group().decode("utf-8", "replace")
                text = printable(self.transcript.gate.text(text))
                raise GuestPanic(f"the VM died: {text}", tail=self.transcript.tail())
            try:
                wait = min(SLICE_SECONDS, deadline.remaining())
            except DeadlineExceeded as error:
                raise DeadlineExceeded(
                    error.brief, hint=error.hint, tail=self.transcript.tail()
                ) from None
            self._window = (self._window + self.read(wait))[-SEARCH_BYTES:]

    def read(self, seconds: float) -> bytes:
        """Returns the next piece of output; empty when none arrives within `seconds`.

        Raises QemuEnded when the program has ended.
        """
        try:
            return bytes(self._child.read_nonblocking(PIECE_BYTES, timeout=seconds))
        except pexpect.TIMEOUT:
            return b""
        except pexpect.EOF:
            raise QemuEnded(self._ending(), self.transcript.tail()) from None

    def _drain(self) -> None:
        """Reads on for a moment, so that the transcript has the output after a panic."""
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            try:
                self._child.read_nonblocking(65536, timeout=0.1)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                return

    def _ending(self) -> int:
        self._child.close(force=True)
        if self._child.signalstatus is not None:
            return -int(self._child.signalstatus)
        return int(self._child.exitstatus or 0)

    def converse(self, source: int, sink: int, escape: bytes) -> None:
        """Copies bytes unchanged between a terminal and the program, in both directions.

        `source` and `sink` are file descriptors. Returns when the user types `escape`, at the end
        of `source`, or when the program ends with status 0. Raises QemuEnded when the program ends
        otherwise.
        """
        program = self._child.child_fd
        os.set_blocking(program, False)
        typed = b""
        while True:
            # The escape must work while the guest accepts no input, so writes never block.
            ready, free, _ = select.select([program, source], [program] if typed else [], [])
            if source in ready:
                keys, escaped, _ = os.read(source, PIECE_BYTES).partition(escape)
                if escaped or not keys:
                    return
                typed = (typed + keys)[:TYPED_LIMIT]
            if free:
                with suppress(BlockingIOError):
                    typed = typed[os.write(program, typed) :]
            if program in ready:
                try:
                    output = self._child.read_nonblocking(PIECE_BYTES, timeout=0)
                except pexpect.TIMEOUT:
                    continue
                except pexpect.EOF:
                    break
                while output:
                    output = output[os.write(sink, output) :]
        if status := self._ending():
            raise QemuEnded(status, self.transcript.tail())

    def send_line(self, text: str) -> None:
        self._child.sendline(text)

    def watch(self, on_death: Callable[[], None]) -> None:
        """Starts to drain the console in the background; calls `on_death` once at the end."""

        def loop() -> None:
            never = re.compile(rb"(?!)")
            while not self._stop.is_set():
                try:
                    self.expect_any([never], Deadline.after(1.0, "a moment"))
                except DeadlineExceeded:
                    continue
                except VmError as error:
                    self.death = error
                except (OSError, ValueError) as error:
                    self.death = VmError(f"the VM's console is gone: {error}")
                on_death()
                return

        self._watcher = threading.Thread(target=loop, daemon=True, name="console")
        self._watcher.start()

    def wait_for_end(self, deadline: Deadline) -> None:
        """Waits until the watcher has noticed the end of the program."""
        while self.death is None:
            time.sleep(min(0.05, deadline.remaining()))

    def is_alive(self) -> bool:
        return bool(self._child.isalive())

    def ends_within(self, seconds: float) -> bool:
        """Waits up to `seconds` for the program; returns whether it has ended."""
        until = time.monotonic() + seconds
        while alive := self.is_alive():
            if time.monotonic() >= until:
                break
            time.sleep(0.02)
        return not alive

    def close(self) -> None:
        """Kills and reaps the program; the transcript's file is complete afterwards."""
        with held_back():
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._stop.set()
            if self._watcher is not None:
                self._watcher.join(5)
            if not self._child.closed:
                with suppress(OSError, ValueError, VmError):
                    self._drain()
                # pexpect gives up after a tenth of a second; a busy host reaps a large QEMU later.
                self.ends_within(KILLED_SECONDS)
                self._child.close(force=True)
            self.transcript.close()

"""The serial console of a VM, held by pexpect."""

from __future__ import annotations

import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pexpect

from particle_os.errors import DeadlineExceeded, InfrastructureError, VmError, printable
from particle_os.system.deadline import Deadline
from particle_os.system.interrupt import held_back
from particle_os.system.process import dies_with_parent

# The kernel's own words (kernel/panic.c), and the marker of our init programs.
DEATHS = (
    re.compile(rb"Kernel panic - not syncing[^\r\n]*"),
    re.compile(rb"PARTICLE-OS-FAILED[^\r\n]*"),
)
# Terminal control sequences (ECMA-48), left out where a person reads.
ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]{0,400}(\x07|\x1b\\)|[@-Z\\-_a-z])")
PIECE_BYTES = 4096
SEARCH_BYTES = 8192
TYPED_LIMIT = 1 << 20
SLICE_SECONDS = 0.5
TRANSCRIPT_LIMIT = 32 << 20
TAIL_LINES, TAIL_BYTES = 15, 16384


class GuestPanic(VmError):
    """The guest's kernel panicked, or our init gave up."""


class QemuEnded(VmError):
    """QEMU is gone; `status` is its exit status, or minus the signal that killed it."""

    def __init__(self, status: int, tail: Sequence[str]) -> None:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        super().__init__(f"the VM died: QEMU {how}", tail=tail)
        self.status = status


class Transcript:
    """Keeps what the console said: whole in a file (up to a limit), the end in memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._written = 0
        self._tail = b""

    def write(self, data: bytes) -> None:
        # Bytes, not writes: firmware says a character at a time.
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        room = TRANSCRIPT_LIMIT - self._written
        if room > 0:
            self._written += self._file.write(data[:room])

    def flush(self) -> None:
        """pexpect calls this after each write; the file is not buffered."""

    def close(self) -> None:
        self._file.close()

    def tail(self, lines: int = TAIL_LINES) -> list[str]:
        """The last lines, safe to show."""
        return last_lines(self._tail, lines)


def last_lines(said: bytes, lines: int) -> list[str]:
    """The last lines of what a console said, safe to show; empty ones are left out."""
    text = ESCAPES.sub(b"", said).decode("utf-8", "replace").replace("\r", "\n")
    return [printable(line, 200) for line in text.split("\n") if line.strip()][-lines:]


class Console:
    """Starts a program on a pseudo-terminal and waits for what its guest says.

    A kernel panic, the init's failure marker and the end of the program abort any wait at once
    with a VmError that carries the transcript's tail. Only one thread uses it at a time: the
    caller's, and after `watch` the watcher's.
    """

    def __init__(self, argv: Sequence[str], *, directory: Path, transcript: Path) -> None:
        self.transcript = Transcript(transcript)
        # A VM's terminal has no size that matters, and no echo: what is said is the guest's.
        try:
            self._child: Any = self._spawn(argv, directory)
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
    def _spawn(argv: Sequence[str], directory: Path) -> Any:
        return pexpect.spawn(
            argv[0],
            list(argv[1:]),
            cwd=str(directory),
            echo=False,
            timeout=None,
            preexec_fn=dies_with_parent(signal.SIGKILL),
            ignore_sighup=False,
        )

    @property
    def pid(self) -> int:
        return int(self._child.pid)

    def expect(self, pattern: str, deadline: Deadline) -> re.Match[bytes]:
        """Waits for `pattern` (bytes regular expression as text) and returns its match."""
        _, match = self.expect_any([re.compile(pattern.encode())], deadline)
        return match

    def expect_any(
        self, patterns: Sequence[re.Pattern[bytes]], deadline: Deadline
    ) -> tuple[int, re.Match[bytes]]:
        """Waits for the first of `patterns`; returns its index and match."""
        wanted = [*patterns, *DEATHS]
        while True:
            # Each piece is searched before the window moves on, so that nothing slips through
            # and a flood stays bounded (pexpect's own expect keeps all that did not match).
            found = [
                (m.start(), i, m) for i, p in enumerate(wanted) if (m := p.search(self._window))
            ]
            if found:
                _, index, match = min(found, key=lambda item: item[:2])
                self._window = self._window[match.end() :]
                if index < len(patterns):
                    return index, match
                self._drain()
                text = printable(match.group().decode("utf-8", "replace"))
                raise GuestPanic(f"the VM died: {text}", tail=self.transcript.tail())
            try:
                wait = min(SLICE_SECONDS, deadline.remaining())
            except DeadlineExceeded as error:
                raise DeadlineExceeded(
                    error.brief, hint=error.hint, tail=self.transcript.tail()
                ) from None
            self._window = (self._window + self.read(wait))[-SEARCH_BYTES:]

    def read(self, seconds: float) -> bytes:
        """The next piece of what the console says; empty when nothing comes within `seconds`.

        Raises QemuEnded.
        """
        try:
            return bytes(self._child.read_nonblocking(PIECE_BYTES, timeout=seconds))
        except pexpect.TIMEOUT:
            return b""
        except pexpect.EOF:
            raise QemuEnded(self._ending(), self.transcript.tail()) from None

    def _drain(self) -> None:
        """Reads on for a moment, so that the transcript has what follows a panic."""
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
        """Carries bytes between a terminal and the program, both ways, as they are.

        `source` and `sink` are descriptors. Returns when `escape` is typed, at the end of `source`,
        or when the program has ended well; raises QemuEnded when it has ended otherwise.
        """
        program = self._child.child_fd
        os.set_blocking(program, False)
        typed = b""
        while True:
            # A guest that takes nothing must not keep the escape from being heard.
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
                    said = self._child.read_nonblocking(PIECE_BYTES, timeout=0)
                except pexpect.TIMEOUT:
                    continue
                except pexpect.EOF:
                    break
                while said:
                    said = said[os.write(sink, said) :]
        if status := self._ending():
            raise QemuEnded(status, self.transcript.tail())

    def send_line(self, text: str) -> None:
        self._child.sendline(text)

    def watch(self, on_death: Callable[[], None]) -> None:
        """From now on drains the console in the background; `on_death` is called once."""

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
        """Returns when the program has ended; the watcher has noticed by then."""
        while self.death is None:
            time.sleep(min(0.05, deadline.remaining()))

    def is_alive(self) -> bool:
        return bool(self._child.isalive())

    def ends_within(self, seconds: float) -> bool:
        """Whether the program ends in this time; waits for that."""
        until = time.monotonic() + seconds
        while alive := self.is_alive():
            if time.monotonic() >= until:
                break
            time.sleep(0.02)
        return not alive

    def close(self) -> None:
        """Kills the program and reaps it; the transcript's file is complete afterwards."""
        with held_back():
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._stop.set()
            if self._watcher is not None:
                self._watcher.join(5)
            if not self._child.closed:
                try:
                    self._drain()
                except (OSError, ValueError):
                    pass
                self._child.close(force=True)
            self.transcript.close()

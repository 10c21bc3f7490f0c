"""Reads QEMU's dump of a network card while the machine runs.

QEMU writes each frame into a pipe before it forwards the frame, and waits while the pipe is full.
When a pipe has no reader any more, QEMU stops the dump and goes on (net/dump.c).
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from particle_os.vm.argv import RECEIVED, SENT
from particle_os.vm.traffic import Dump, Tally, Traffic

# More than a pipe holds (pipe(7)), so that one reading empties it.
CHUNK = 1 << 18


class Capture:
    """Adds up the frames of a card; use `capturing`."""

    def __init__(self, sent: int, received: int) -> None:
        """The descriptors of the pipes with the frames that the guest sends and receives."""
        self._sent = sent
        # The dumps that QEMU has not ended.
        self._dumps = {sent: Dump(), received: Dump()}
        self._tally = Tally()
        self._complete = True
        self._lock = threading.Lock()

    def take(self) -> Traffic:
        """The hosts that the guest has reached since the last call; its cable is out.

        All frames that QEMU has forwarded are part of it.
        """
        with self._lock:
            for pipe in list(self._dumps):
                self._read(pipe)
            tally, self._tally = self._tally, Tally()
            return tally.result(complete=self._complete)

    def follow(self, stop: int) -> None:
        """Reads until QEMU has closed all pipes, or `stop` has an event. Closes the pipes."""
        poll, pipes = select.poll(), list(self._dumps)
        for descriptor in (stop, *pipes):
            poll.register(descriptor, select.POLLIN)
        try:
            while self._dumps:
                ready = [descriptor for descriptor, _ in poll.poll()]
                if stop in ready:
                    return
                with self._lock:
                    for pipe in ready:
                        if pipe in self._dumps:
                            self._read(pipe)
                        if pipe not in self._dumps:
                            poll.unregister(pipe)
        finally:
            with self._lock:
                self._complete = self._complete and not self._dumps
                self._dumps.clear()
                for pipe in pipes:
                    os.close(pipe)

    def _read(self, pipe: int) -> None:
        """Reads all that a pipe has, and forgets the pipe at its end."""
        try:
            data = os.read(pipe, CHUNK)
        except BlockingIOError:
            return
        if not data:
            del self._dumps[pipe]
            return
        try:
            for frame, size in self._dumps[pipe].feed(data):
                self._tally.add(frame, size, sent=pipe == self._sent)
        except ValueError:
            self._complete = False


@contextmanager
def capturing(directory: Path) -> Iterator[Capture]:
    """Reads the dumps that QEMU writes in `directory`; QEMU starts and ends inside the context."""
    with ExitStack() as stack:
        capture = Capture(_pipe(directory / SENT), _pipe(directory / RECEIVED))
        stopped, stop = os.pipe()
        stack.callback(os.close, stopped)
        thread = threading.Thread(target=capture.follow, args=(stopped,), daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(os.close, stop)
        yield capture


def _pipe(path: Path) -> int:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    # A blocking open would wait for QEMU, which in turn waits for a reader.
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)

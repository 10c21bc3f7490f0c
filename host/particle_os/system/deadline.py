"""Deadlines, which every wait takes as an argument."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from particle_os.errors import DeadlineExceeded


@dataclass(frozen=True)
class Deadline:
    """A time of the monotonic clock by which `what` must end; `seconds` is the original limit."""

    what: str
    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float, what: str) -> Deadline:
        return cls(what, seconds, time.monotonic() + seconds)

    def sooner(self, seconds: float, what: str) -> Deadline:
        """A deadline for a part of the work: `seconds` from now, but never later than this one."""
        part = Deadline.after(seconds, what)
        return part if part.at < self.at else self

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.at

    def remaining(self) -> float:
        """The seconds left. Raises DeadlineExceeded when there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"{self.what} took longer than {self.seconds:.0f} s")
        return left


@contextmanager
def cut_off(connection: socket.socket, deadline: Deadline) -> Iterator[None]:
    """Shuts a connection down at the deadline, so that a slow peer cannot stretch a read."""

    def cut() -> None:
        with suppress(OSError):
            # SSLSocket.shutdown also drops TLS: a reader would take what is encrypted for content.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(deadline.remaining(), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

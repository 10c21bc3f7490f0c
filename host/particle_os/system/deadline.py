"""Deadlines, which every wait takes as an argument."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

from particle_os.errors import DeadlineExceeded


@dataclass(frozen=True)
class Deadline:
    """A time of the monotonic clock by which `what` must end; `seconds` is the original limit."""

    what: str
    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float, what: str) -> Self:
        return cls(what, seconds, time.monotonic() + seconds)

    def sooner(self, seconds: float, what: str) -> Deadline:
        """A deadline for a part of the work: `seconds` from now, but never later than this one."""
        part = Deadline.after(seconds, what)
        return part if part.at < self.at else self

    @property
    def left(self) -> float:
        """The seconds left; negative after the deadline."""
        return self.at - time.monotonic()

    @property
    def limit(self) -> str:
        """The limit as a text."""
        return f"{self.seconds:.0f} s"

    @property
    def is_over(self) -> bool:
        return self.left <= 0

    def remaining(self) -> float:
        """The seconds left. Raises DeadlineExceeded when there are none."""
        left = self.left
        if left <= 0:
            raise DeadlineExceeded(f"{self.what} took longer than {self.limit}")
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

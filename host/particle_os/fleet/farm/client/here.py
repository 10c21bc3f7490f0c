"""A farm on this machine: its builds write into the output directory themselves."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from particle_os.fleet.build_end import BuildEnd
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.farm.client.connection import Inbox, connected
from particle_os.fleet.farm.client.local import local_farm
from particle_os.fleet.farm.client.run import FarmLink
from particle_os.fleet.order import Order
from particle_os.system.workspace import Workspace

# The builds of a farm on this machine end with it: a keeper needs 4 s at most.
END_SECONDS = 8.0


class FarmHere:
    """A scheduler and workers of our own, for one command."""

    has_machines = False

    def __init__(self, workers: int, work: Workspace, *, lines: bool) -> None:
        self._workers = workers
        self._work = work
        self._lines = lines
        self._lock = work.path / "farm-builds"
        self._lock.touch(0o600)

    @contextmanager
    def connect(self, inbox: Inbox) -> Iterator[FarmLink]:
        try:
            with local_farm(self._workers, self._work.path) as farm:
                with connected(farm.url, farm.keys, inbox) as link:
                    yield link
        finally:
            self._wait()

    def assignment(self, order: Order) -> Assignment:
        key = secrets.token_hex(16)
        return Assignment(
            name=order.name, key=key, command=order.command(), lines=self._lines,
            lock=str(self._lock), variables=order.options.variables,
        )  # fmt: skip

    def deliver(self, order: Order, end: BuildEnd) -> BuildEnd:
        return end

    def _wait(self) -> None:
        """Waits for the end of all keepers: each one holds a lock."""
        until = time.monotonic() + END_SECONDS
        descriptor = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while time.monotonic() < until:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    time.sleep(0.05)
        finally:
            os.close(descriptor)

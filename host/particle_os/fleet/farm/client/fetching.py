"""Brings the files of finished builds to this machine, while others are built."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from particle_os.errors import ParticleError
from particle_os.fleet.build_end import BuildEnd
from particle_os.fleet.order import Order
from particle_os.system.workspace import failed_call

Deliver = Callable[[Order, BuildEnd], BuildEnd]


class Fetching:
    """A thread that delivers one build after the other, for as long as this process runs.

    A transfer that hangs does not hold up the end of the process.
    """

    def __init__(self, deliver: Deliver, done: Callable[[], None]) -> None:
        """`done` is called after each build, in the thread."""
        self._deliver, self._done = deliver, done
        self._due: queue.SimpleQueue[tuple[Order, BuildEnd]] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[BuildEnd] = queue.SimpleQueue()
        # The builds that were put, and not taken.
        self._count = 0
        self._thread: threading.Thread | None = None

    @property
    def is_done(self) -> bool:
        return self._count == 0

    def put(self, order: Order, end: BuildEnd) -> None:
        """Lets a build be delivered, after those before it."""
        self._count += 1
        self._due.put((order, end))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fetching", daemon=True)
            self._thread.start()

    def ready(self) -> list[BuildEnd]:
        """The ends of the builds that are delivered; each one is returned once."""
        found = []
        while not self._ready.empty():
            found.append(self._ready.get())
        self._count -= len(found)
        return found

    def _run(self) -> None:
        while True:
            order, end = self._due.get()
            self._ready.put(delivered(self._deliver, order, end))
            self._done()


def delivered(deliver: Deliver, order: Order, end: BuildEnd) -> BuildEnd:
    """The end of a build whose files are here, or the error that kept them away."""
    try:
        return deliver(order, end)
    except ParticleError as error:
        found = error
    except OSError as error:
        found = failed_call(error)
    except Exception as error:
        # It is the end of this build, and of no other one.
        found = ParticleError(f"internal error: {type(error).__name__}: {error}")
    return BuildEnd(order, found.exit_code, end.seconds, error=found)

"""A worker looks at its disk while it runs: with a full disk it takes no builds."""

from __future__ import annotations

from functools import partial
from typing import Any

from distributed import WorkerPlugin
from tornado.ioloop import PeriodicCallback

from particle_os.fleet.farm.names import SLOT
from particle_os.system.workspace import cache_directory, free_bytes


class RoomCheck(WorkerPlugin):
    """A plug-in of Dask's worker. It sets the slots to 0 while less than `room` bytes are free.

    It looks each `seconds`.
    """

    name = "particle-os-room"

    def __init__(self, room: int, slots: int, seconds: float) -> None:
        self._room = room
        self._slots = slots
        self._seconds = seconds

    def setup(self, worker: Any) -> None:
        """Begins the checks; the worker ends them with itself."""

        repeated = PeriodicCallback(partial(self.check, worker), self._seconds * 1000)
        worker.periodic_callbacks["particle-os-room"] = repeated
        repeated.start()

    async def check(self, worker: Any) -> None:
        """Takes the slots away, or gives them back, when the disk asks for it."""
        wanted = self._slots if free_bytes(cache_directory()) >= self._room else 0
        if worker.state.total_resources.get(SLOT) != wanted:
            await worker.set_resources(**{SLOT: wanted})

"""The connection of a client with a scheduler: it submits builds, and hears of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from particle_os.errors import InfrastructureError
from particle_os.fleet.farm import engine
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.fleet.farm.member import task

CONNECT_SECONDS, CLOSE_SECONDS = 30.0, 5.0
# A scheduler that answers nothing for so long is lost.
ANSWER_SECONDS = 60.0
# What `distributed` raises when a scheduler takes an answer with it.
SILENT = (OSError, TimeoutError, RuntimeError)


@dataclass(frozen=True)
class Heard:
    """Events of a build that runs on the worker `worker`."""

    name: str
    worker: str
    events: list[dict[str, Any]]


@dataclass(frozen=True)
class Answered:
    """The answer of the worker, which may be anything.

    None with a `fault`, or when the scheduler has lost the build.
    """

    name: str
    answer: Any = None
    fault: str | None = None


# None only wakes the client.
Inbox = SimpleQueue[Heard | Answered | None]


class FarmLost(Exception):
    """The scheduler has forgotten a build, or does not answer."""


@contextmanager
def _asking() -> Iterator[None]:
    """Raises FarmLost for whatever `distributed` raises when the scheduler does not answer."""
    try:
        yield
    except Exception as error:
        raise FarmLost from error


class FarmConnection:
    """A connection whose messages arrive in `inbox`. `close` cancels all builds."""

    def __init__(self, url: str, keys: FarmKeys | None, inbox: Inbox) -> None:
        """Connects to a scheduler. Raises InfrastructureError when it does not answer."""
        from distributed import Client

        self._futures: dict[str, Any] = {}
        self._inbox = inbox
        # The answers that a cancellation of ours has made worthless.
        self._closing = False
        self._count = 0
        try:
            self._client = Client(
                url, security=engine.security(url, keys), timeout=CONNECT_SECONDS,
                set_as_default=False, name="particle-os",
            )  # fmt: skip
        except (OSError, TimeoutError, ValueError) as error:
            raise InfrastructureError(
                f"the scheduler of the farm does not answer: {url}: {error}",
                hint="Start it with 'particle-os farm scheduler'; docs/farm.md shows the rest.",
            ) from error
        # The scheduler forgets what it knows under the name of a client when the client is gone.
        self._topic = self._client.id
        self._client.subscribe_topic(self._topic, self._hear)

    def workers(self) -> dict[str, dict[str, float]]:
        """The resources of each worker, by its address. Raises FarmLost."""
        with _asking():
            # Without a time limit, a scheduler that hangs would hold the client for ever.
            identity = self._client.scheduler.identity  # type: ignore[union-attr]
            asked = self._client.sync(identity, n_workers=-1, callback_timeout=ANSWER_SECONDS)
            found = asked["workers"]
            return {address: dict(worker["resources"]) for address, worker in found.items()}

    def submit(
        self,
        assignment: Assignment,
        demands: Mapping[str, float],
        priority: int,
        workers: Collection[str] | None,
    ) -> None:
        """Submits a build, for these workers only if they are given. Raises FarmLost."""
        self._count += 1
        with _asking():
            future = self._client.submit(
                task.build, assignment.encode(), self._topic,
                key=f"build-{assignment.name}-{assignment.key[:16]}-{self._count}",
                resources=dict(demands), priority=priority, pure=False,
                workers=list(workers) if workers is not None else None,
            )  # fmt: skip
        self._futures[assignment.name] = future
        future.add_done_callback(lambda done: self._answer(assignment.name, done))

    def cancel(self, names: Collection[str]) -> None:
        """Cancels builds: their answers still come, without content. Raises FarmLost."""
        futures = [self._futures[name] for name in names if name in self._futures]
        with _asking():
            if futures:
                self._client.cancel(futures, force=True)

    def forget(self, name: str) -> None:
        """Releases what the scheduler keeps of a build."""
        self._futures.pop(name, None)

    def close(self) -> None:
        """Cancels all builds, and ends the connection."""
        self._closing = True
        try:
            self.cancel(list(self._futures))
        except FarmLost:
            pass  # The scheduler is gone, and has no builds then.
        self._futures.clear()
        # A scheduler that hangs does not say goodbye.
        with suppress(*SILENT):
            self._client.close(timeout=CLOSE_SECONDS)

    def _hear(self, event: Any) -> None:
        _, message = event
        # The scheduler has messages of its own.
        if isinstance(message, dict) and message.keys() == {"name", "worker", "events"}:
            events = message["events"]
            # Dask makes tuples of lists.
            if isinstance(events, list | tuple) and all(
                isinstance(event, dict) for event in events
            ):
                self._inbox.put(Heard(str(message["name"]), str(message["worker"]), list(events)))

    def _answer(self, name: str, future: Any) -> None:
        """Runs in a thread of `distributed`."""
        if self._closing:
            return
        status, answer, fault = future.status, None, None
        try:
            if status == "finished":
                answer = future.result(timeout=ANSWER_SECONDS)
            elif status == "error":
                fault = _told(future.exception(timeout=ANSWER_SECONDS))
        except SILENT:
            pass  # The scheduler has gone before it could pass on the answer.
        except Exception as error:
            # Whatever it is, it is the end of this attempt.
            fault = None if future.status in ("cancelled", "lost") else _told(error)
        self._inbox.put(Answered(name, answer, fault))


@contextmanager
def connected(url: str, keys: FarmKeys | None, inbox: Inbox) -> Iterator[FarmConnection]:
    """Connects with a scheduler for as long as the context lasts. Raises InfrastructureError."""
    connection = FarmConnection(url, keys, inbox)
    try:
        yield connection
    finally:
        connection.close()


def _told(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"[:1000]

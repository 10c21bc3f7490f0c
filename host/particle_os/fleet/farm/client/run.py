"""Builds several images on a farm, and shows them as builds of this machine are shown.

The client survives the loss of workers and of the scheduler: what is not finished begins again,
which the contract of a build allows (docs/farm.md).
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Protocol

from particle_os.errors import InfrastructureError
from particle_os.fleet.build_end import BuildEnd
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.farm.client.attempt import Attempt
from particle_os.fleet.farm.client.connection import Answered, FarmLost, Heard, Inbox
from particle_os.fleet.farm.client.dispatch import Dispatch
from particle_os.fleet.farm.client.fetching import Fetching
from particle_os.fleet.farm.slots import demands, fitting, misfits
from particle_os.fleet.order import Order
from particle_os.fleet.running import View

TICK_SECONDS = 0.5
# The workers are counted so often.
COUNT_SECONDS = 2.0
# When no worker fits: the time until the user learns why, and the time until the command ends.
HINT_SECONDS, NO_WORKER_SECONDS = 10.0, 900.0
# A build begins so often at most: also elsewhere, when a machine is to blame.
ATTEMPTS = 3
# The scheduler may be lost so often, and needs so long at most to be started again.
LOSSES, RETURN_SECONDS = 5, 300.0


class FarmLink(Protocol):
    """A connection with a scheduler."""

    def workers(self) -> dict[str, dict[str, float]]: ...

    def submit(
        self, assignment: Assignment, demands: Mapping[str, float], priority: int,
        workers: Collection[str] | None,
    ) -> None: ...  # fmt: skip

    def cancel(self, names: Collection[str]) -> None: ...

    def forget(self, name: str) -> None: ...


# Connects with a scheduler, which the end of the context leaves.
Connect = Callable[[Inbox], AbstractContextManager[FarmLink]]


class BuildPlace(Protocol):
    """The place of a farm: this machine, or other machines."""

    # Whether a build that its machine has spoilt may begin again on another machine.
    has_machines: bool

    def connect(self, inbox: Inbox) -> AbstractContextManager[FarmLink]: ...

    def assignment(self, order: Order) -> Assignment: ...

    def deliver(self, order: Order, end: BuildEnd) -> BuildEnd:
        """Brings the files of a build that has ended to this machine, in a thread."""
        ...


class FarmRun:
    """The builds of one command on a farm."""

    def __init__(
        self,
        place: BuildPlace,
        orders: Sequence[Order],
        view: View,
        ends: dict[str, BuildEnd],
        *,
        jobs: int | None,
        fail_fast: bool,
    ) -> None:
        self._place = place
        self._view = view
        self._ends = ends
        self._fail_fast = fail_fast
        self._stopped = False
        self._priorities = {order.name: -number for number, order in enumerate(orders)}
        self._assignments = {order.name: place.assignment(order) for order in orders}
        self._dispatch = Dispatch(orders, jobs)
        self._shown: dict[str, str] = {}
        # The workers that have failed with a build.
        self._avoided: dict[str, set[str]] = {}
        # The workers that alone may take a build, and the builds that were taken from them.
        self._chosen: dict[str, set[str]] = {}
        self._moved: set[str] = set()
        self._inbox: Inbox = queue.SimpleQueue()
        self._fetching = Fetching(place.deliver, lambda: self._inbox.put(None))
        self._slots = 0
        self._workers: dict[str, dict[str, float]] = {}
        self._count_at = 0.0
        self._lonely_since: float | None = None
        self._has_hinted = False

    def run(self) -> None:
        """Builds all images. Raises InfrastructureError when the farm is lost."""
        losses = 0
        while not self._is_done:
            try:
                with ExitStack() as stack:
                    self._run(self._connected(stack, is_first=losses == 0))
            except FarmLost:
                losses += 1
                if losses > LOSSES:
                    raise InfrastructureError(
                        f"the scheduler of the farm was lost {losses} times",
                        hint="Run the command again when it works: finished images stay.",
                    ) from None
                self._begin_again()

    @property
    def _is_done(self) -> bool:
        return self._dispatch.is_done and self._fetching.is_done

    def _connected(self, stack: ExitStack, *, is_first: bool) -> FarmLink:
        """A connection; a scheduler that was there before gets time to come back."""
        until = time.monotonic() + (0 if is_first else RETURN_SECONDS)
        while True:
            try:
                return stack.enter_context(self._place.connect(self._inbox))
            except InfrastructureError:
                if time.monotonic() >= until:
                    raise
                time.sleep(TICK_SECONDS)

    def _run(self, link: FarmLink) -> None:
        self._count_at = 0.0
        while not self._is_done:
            self._count(link)
            for order in self._dispatch.due(self._slots, self._fits):
                self._submit(link, order)
            try:
                message = self._inbox.get(timeout=TICK_SECONDS)
            except queue.Empty:
                continue
            for end in self._fetching.ready():
                self._finish(link, end)
            if message is not None:
                self._hear(link, message)

    def _begin_again(self) -> None:
        """Lets the builds that ran begin again, with a new connection."""
        self._inbox = queue.SimpleQueue()
        self._inbox.put(None)
        self._chosen.clear()
        self._moved.clear()
        for name, order in list(self._dispatch.running.items()):
            self._note(order, "the scheduler of the farm was lost; the build begins again")
            self._dispatch.again(name)
        if self._stopped:
            self._dispatch.stop()

    def _count(self, link: FarmLink) -> None:
        """Counts the slots of the workers that fit, now and then."""
        if time.monotonic() < self._count_at:
            return
        self._count_at = time.monotonic() + COUNT_SECONDS
        self._workers = link.workers()
        kinds = {tuple(sorted(demands(order))) for order in self._dispatch.left}
        self._slots = sum(
            max((fitting({name: has}, kind) for kind in kinds), default=0)
            for name, has in self._workers.items()
        )
        self._move(link)
        self._complain()

    def _fits(self, order: Order) -> bool:
        return fitting(self._workers, demands(order)) > 0

    def _move(self, link: FarmLink) -> None:
        """Takes builds from chosen workers that are gone, so that others can have them."""
        for name, chosen in list(self._chosen.items()):
            if name in self._dispatch.running and not chosen & self._workers.keys():
                del self._chosen[name]
                self._moved.add(name)
                link.cancel([name])

    def _complain(self) -> None:
        """Says why nothing happens when no worker fits; raises InfrastructureError in the end."""
        left = self._dispatch.left
        is_running = any(self._shown.get(n) in self._workers for n in self._dispatch.running)
        if not left or is_running or any(map(self._fits, left)):
            self._lonely_since, self._has_hinted = None, False
            return
        reasons = misfits(self._workers, demands(left[0]))
        now = time.monotonic()
        if self._lonely_since is None:
            self._lonely_since = now
        alone = now - self._lonely_since
        why = "; ".join(reasons) or "there is none"
        if alone > NO_WORKER_SECONDS:
            raise InfrastructureError(
                f"no worker of the farm takes the builds: {why}",
                hint="Start one with 'particle-os farm worker SCHEDULER'.",
            )
        if alone > HINT_SECONDS and not self._has_hinted:
            self._has_hinted = True
            self._note(left[0], f"waiting for a worker that fits: {why}")

    def _submit(self, link: FarmLink, order: Order) -> None:
        others = None
        wanted = demands(order)
        if order.name in self._avoided and (others := self._others(link, order) or None):
            self._chosen[order.name] = others
        priority = self._priorities[order.name]
        link.submit(self._assignments[order.name], wanted, priority, others)

    def _others(self, link: FarmLink, order: Order) -> set[str]:
        """The workers that can build an image, and have not failed with it."""
        wanted = demands(order)
        fit = {name for name, has in link.workers().items() if fitting({name: has}, wanted)}
        return fit - self._avoided.get(order.name, set())

    def _hear(self, link: FarmLink, message: Heard | Answered) -> None:
        order = self._dispatch.running.get(message.name)
        if order is None:
            return
        if isinstance(message, Heard):
            self._show(order, message)
            return
        link.forget(order.name)
        self._chosen.pop(order.name, None)
        if message.answer is None and message.fault is None:
            self._forgotten(link, order)
            return
        attempt = Attempt.of(message)
        if self._may_begin_again(link, order, attempt):
            self._dispatch.again(order.name)
            return
        self._dispatch.ended(order.name)
        end = attempt.end(order)
        if attempt.ended is None:
            self._finish(link, end)
        else:
            self._stop_after(link, end)
            self._fetching.put(order, end)

    def _forgotten(self, link: FarmLink, order: Order) -> None:
        """A build was cancelled, or its scheduler has lost it: raises FarmLost then."""
        if self._stopped:
            self._dispatch.ended(order.name)
            self._finish(link, BuildEnd(order, None, cancelled=True))
        elif order.name in self._moved:
            self._moved.discard(order.name)
            self._note(order, "its worker was lost; it begins again on another machine")
            self._dispatch.again(order.name)
        else:
            raise FarmLost

    def _show(self, order: Order, message: Heard) -> None:
        for event in message.events:
            if event.get("event") == "worker":
                self._placed(order, message.worker, str(event.get("host")))
            # A worker that was cut off still speaks of a build that another one has now.
            elif message.worker == self._shown.get(order.name):
                # No event of a worker is worth the other builds.
                with suppress(LookupError, TypeError, ValueError, AttributeError):
                    self._view.event(order, event)

    def _placed(self, order: Order, worker: str, host: str) -> None:
        before = self._shown.get(order.name)
        self._began(order)
        self._shown[order.name] = worker
        if not before:
            self._note(order, f"runs on {host}")
        elif before != worker:
            self._note(order, f"its worker was lost; it begins again on {host}")

    def _began(self, order: Order) -> None:
        if order.name not in self._shown:
            self._shown[order.name] = ""
            self._view.began(order)

    def _note(self, order: Order, text: str) -> None:
        self._began(order)
        self._view.event(order, {"event": "note", "text": text})

    def _may_begin_again(self, link: FarmLink, order: Order, attempt: Attempt) -> bool:
        """Whether a machine may be to blame for a bad end, and another one can try."""
        if self._stopped or self._dispatch.attempts[order.name] >= ATTEMPTS:
            return False
        if not attempt.is_spoilt or not self._place.has_machines:
            return attempt.is_loss
        worker = self._shown.get(order.name, "")
        self._avoided.setdefault(order.name, set()).add(worker)
        if not self._others(link, order):
            return False
        self._note(order, f"begins again on another machine, because of: {attempt.why}")
        return True

    def _finish(self, link: FarmLink, end: BuildEnd) -> None:
        self._began(end.order)
        self._ends[end.order.name] = end
        self._view.ended(end)
        self._stop_after(link, end)

    def _stop_after(self, link: FarmLink, end: BuildEnd) -> None:
        """With --fail-fast, the first bad end stops all other builds."""
        if self._fail_fast and end.exit_code and not self._stopped:
            self._stopped = True
            self._dispatch.stop()
            link.cancel(list(self._dispatch.running))

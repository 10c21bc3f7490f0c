"""The order of builds on a farm: which build is the next one, and how many run at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from particle_os.fleet.order import Order


class Dispatch:
    """The builds that wait and those that run.

    The farm gets no more builds than it has slots: so the longest build that waits begins as soon
    as any slot is free, on whichever worker it is.
    """

    def __init__(self, orders: Sequence[Order], most: int | None = None) -> None:
        self._waiting = deque(orders)
        self._most = most
        self.running: dict[str, Order] = {}
        self.attempts = Counter[str]()

    @property
    def is_done(self) -> bool:
        return not self._waiting and not self.running

    @property
    def left(self) -> list[Order]:
        """The builds that wait or run."""
        return [*self._waiting, *self.running.values()]

    def due(self, slots: int, fits: Callable[[Order], bool] = lambda order: True) -> list[Order]:
        """The builds to begin now on a farm with so many slots; they count as running.

        A build that no worker takes does not hold up those after it.
        """
        free = max(0, min(slots, self._most or slots) - len(self.running))
        found = [order for order in self._waiting if fits(order)][:free]
        for order in found:
            self._waiting.remove(order)
            self.running[order.name] = order
            self.attempts[order.name] += 1
        return found

    def ended(self, name: str) -> None:
        """Notes the end of a build."""
        del self.running[name]

    def again(self, name: str) -> None:
        """Lets a running build begin again, before all that wait."""
        self._waiting.appendleft(self.running.pop(name))

    def stop(self) -> None:
        """Begins no other build."""
        self._waiting.clear()

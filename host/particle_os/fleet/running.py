"""Runs the builds of several images, some at a time."""

from __future__ import annotations

import selectors
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from particle_os.errors import DeadlineExceeded
from particle_os.fleet import planning
from particle_os.fleet.build_end import BuildEnd
from particle_os.fleet.build_process import END_SECONDS, SHOWN, BuildProcess
from particle_os.fleet.order import Order
from particle_os.system.deadline import Deadline

# Each build has deadlines of its own for all that it does. This limit ends one that hangs.
BUILD_SECONDS = 24 * 3600.0
# The deadlines are looked at at least so often.
TICK_SECONDS = 1.0


class View(Protocol):
    """Shows the builds of several images."""

    def began(self, order: Order) -> None: ...

    def event(self, order: Order, event: dict[str, Any]) -> None: ...

    def ended(self, end: BuildEnd) -> None: ...


def run(
    orders: Sequence[Order],
    view: View,
    ends: dict[str, BuildEnd],
    *,
    jobs: int | None = None,
    fail_fast: bool = False,
) -> None:
    """Builds all images, `jobs` at a time, and adds the end of each build to `ends`.

    A build that fails stops no other one; with `fail_fast` it stops all. Call it in the main
    thread.
    """
    jobs = jobs or planning.usual_jobs(orders)
    with _Builds(view, ends) as builds:
        left = planning.spread(orders, jobs)
        while left or builds.running:
            while left and len(builds.running) < jobs:
                builds.start(left.pop(0))
            for end in builds.wait():
                if fail_fast and end.exit_code:
                    left = []
                    builds.cancel()


class _Builds:
    """The running builds; leaving the context ends them."""

    def __init__(self, view: View, ends: dict[str, BuildEnd]) -> None:
        self.running: dict[str, tuple[Order, BuildProcess]] = {}
        self._ends = ends
        self._view = view
        self._selector = selectors.DefaultSelector()
        self._deadlines: dict[str, Deadline] = {}
        self._open: dict[str, int] = {}

    def __enter__(self) -> _Builds:
        return self

    def __exit__(self, *details: object) -> None:
        with ExitStack() as stack:
            stack.callback(self._selector.close)
            for _, build in self.running.values():
                stack.callback(build.end)
            # They end at the same time.
            self.cancel()

    def start(self, order: Order) -> None:
        """Starts a build."""
        build = BuildProcess(order.command(*SHOWN), order.options.variables)
        self.running[order.name] = order, build
        self._deadlines[order.name] = Deadline.after(BUILD_SECONDS, f"the build of {order.name}")
        self._open[order.name] = len(build.pipes)
        for pipe in build.pipes:
            self._selector.register(pipe, selectors.EVENT_READ, (order, build))
        self._view.began(order)

    def wait(self) -> list[BuildEnd]:
        """Waits for output, shows the events in it, and returns the builds that have ended."""
        ended = []
        for key, _ in self._selector.select(TICK_SECONDS):
            order, build = key.data
            events = build.read(key.fileobj)
            if events is not None:
                for event in events:
                    self._view.event(order, event)
                continue
            self._selector.unregister(key.fileobj)
            self._open[order.name] -= 1
            if not self._open[order.name]:
                ended.append(self._finish(order, build))
        for name, (_, build) in self.running.items():
            try:
                self._deadlines[name].remaining()
            except DeadlineExceeded:
                build.kill()
        return ended

    def _finish(self, order: Order, build: BuildProcess) -> BuildEnd:
        end = BuildEnd.of(order, build.finish())
        build.end()
        del self.running[order.name]
        self._ends[order.name] = end
        self._view.ended(end)
        return end

    def cancel(self) -> None:
        """Asks all running builds to end."""
        for name, (_, build) in self.running.items():
            build.cancel()
            self._deadlines[name] = Deadline.after(END_SECONDS, f"the end of {name}")

"""The task of a worker: it runs the process that keeps a build, and passes on its events.

Dask can end a worker at any moment, and does not know of its children. So the process in
`keeper.py` ends the build when its standard input ends, which the kernel does for every dead
worker.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from particle_os.fleet.farm.assignment import Assignment

KEEPER = [sys.executable, "-P", "-m", "particle_os.fleet.farm.member.keeper"]
# Events are sent, and the wish for the build is looked at, so often.
TICK_SECONDS = 0.2
# A message to the client has so many events at most; lines of programs are left out first.
EVENTS_LIMIT = 200
# The keeper ends the build, and then ends.
END_SECONDS = 10.0
GONE = "the process that keeps the build has ended"


def build(assignment: bytes, topic: str) -> dict[str, Any]:
    """Builds an image on a worker, and returns the answer of the keeper.

    The events of the build go to `topic`.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    name = Assignment.decode(assignment).name
    host = socket.gethostname()

    def tell(events: list[dict[str, Any]]) -> None:
        message = {"name": name, "worker": worker.address, "events": events}
        worker.log_event(topic, message)

    tell([{"event": "worker", "host": host}])
    return kept(assignment, lambda: _is_wanted(worker, key), tell)


def _is_wanted(worker: Any, key: object) -> bool:
    """Whether the scheduler still wants the task, as far as the worker knows."""
    state = worker.state.tasks.get(key)
    is_running = worker.status.name in ("running", "paused")
    return is_running and state is not None and state.state in ("executing", "long-running")


def kept(
    assignment: bytes,
    is_wanted: Callable[[], bool],
    tell: Callable[[list[dict[str, Any]]], None],
) -> dict[str, Any]:
    """Runs the keeper with an assignment, for as long as the build `is_wanted`."""
    # The build takes secrets and settings from the environment of the worker.
    with subprocess.Popen(
        KEEPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        env=os.environ,
    ) as keeper:  # fmt: skip
        try:
            return _KeeperPipes(keeper, tell).follow(assignment, is_wanted)
        finally:
            # The end of its standard input ends the build.
            assert keeper.stdin is not None
            try:
                keeper.stdin.close()
            except BrokenPipeError:
                pass
            try:
                keeper.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                keeper.kill()


class _KeeperPipes:
    """The pipes to and from a keeper."""

    def __init__(
        self, keeper: subprocess.Popen[bytes], tell: Callable[[list[dict[str, Any]]], None]
    ) -> None:
        assert keeper.stdin is not None and keeper.stdout is not None
        self._input, self._output = keeper.stdin, keeper.stdout
        self._tell = tell
        self._events: list[dict[str, Any]] = []
        self._rest = b""

    def follow(self, assignment: bytes, is_wanted: Callable[[], bool]) -> dict[str, Any]:
        """Sends the assignment, and returns the answer."""
        try:
            self._input.write(assignment)
            self._input.flush()
        except BrokenPipeError:
            return {"code": None, "fault": GONE}
        answer: dict[str, Any] | None = None
        send_at = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while is_wanted():
                if selector.select(TICK_SECONDS):
                    data = os.read(self._output.fileno(), 1 << 20)
                    if not data:
                        break
                    answer = self._take(data) or answer
                if time.monotonic() >= send_at:
                    self._send()
                    send_at = time.monotonic() + TICK_SECONDS
        self._send()
        return answer or {"code": None, "fault": GONE}

    def _take(self, data: bytes) -> dict[str, Any] | None:
        """Collects the events in the data; returns the answer if it is there."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            found = json.loads(line)
            if "answer" in found:
                answer: dict[str, Any] = found["answer"]
                return answer
            self._events.append(found)
        return None

    def _send(self) -> None:
        if not self._events:
            return
        events, self._events = self._events, []
        if len(events) > EVENTS_LIMIT:
            events = [event for event in events if event.get("event") != "line"]
        self._tell(events[:EVENTS_LIMIT])

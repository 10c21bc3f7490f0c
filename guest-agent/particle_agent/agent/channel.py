"""The agent's side of the wire to the host."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from particle_agent.agent.cable import wait_for_cable
from particle_agent.contract import wire
from particle_agent.contract.decode import decode, encode
from particle_agent.errors import EnvironmentFailed


class Channel:
    """Sends events to the host and receives its answers. Threads may send at the same time."""

    def __init__(self, stream: IO[str], answers: IO[bytes]) -> None:
        self._stream = stream
        self._answers = answers
        self._lock = threading.Lock()

    def send(self, event: wire.AgentEvent) -> None:
        with self._lock:
            self._stream.write(wire.to_line(event))
            self._stream.flush()

    def output(self, text: str) -> None:
        self.send(wire.OutputLine(text=text[: wire.TEXT_LIMIT]))

    def note(self, text: str) -> None:
        self.send(wire.Notice(text=text[: wire.TEXT_LIMIT]))

    def disk_needed(self, size: int, content: int, disk: wire.OutputName = "output") -> None:
        self.send(wire.DiskNeeded(size=size, content=content, disk=disk))

    def disk_written(self, size: int, disk: wire.OutputName = "output") -> None:
        self.send(wire.DiskWritten(size=size, disk=disk))

    def packages(self, request: wire.PackageRequest) -> wire.PackagesAnswer:
        """Asks the host for packages and waits for the answer."""
        Path(wire.PACKAGES_REQUEST).write_text(json.dumps(encode(request)))
        self.send(wire.PackagesNeeded())
        return decode(wire.PackagesAnswer, self.receive())

    def start_stage(self, index: int, *, network: bool) -> None:
        """Waits until the host has set the VM's network for the stage."""
        self.wait_for_host(wire.StageStart(index=index))
        if network:
            wait_for_cable()

    def wait_for_host(self, event: wire.AgentEvent) -> None:
        """Sends an event that the host answers with `Continue`, and waits for the answer."""
        self.send(event)
        decode(wire.Continue, self.receive())

    def receive(self) -> Any:
        """The next JSON object from the host. Raises EnvironmentFailed at end of stream."""
        line = self._answers.readline()
        if not line:
            raise EnvironmentFailed("the host closed the connection to the agent")
        return json.loads(line)

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Sends a heartbeat every `HEARTBEAT_SECONDS` until the context ends."""
        stopped = threading.Event()

        def beat() -> None:
            while not stopped.wait(wire.HEARTBEAT_SECONDS):
                self.send(wire.Heartbeat())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()


def reserve_stdout() -> IO[str]:
    """Returns the real standard output, for events only, and redirects prints to standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return stream

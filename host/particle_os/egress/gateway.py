"""Runs the proxy of a stage, and passes the VM's connections to it."""

from __future__ import annotations

import collections
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import IO, Protocol

from particle_agent.contract.hosts import HostPattern

from particle_os.egress.record import Hosts, HostTally
from particle_os.errors import InfrastructureError, printable
from particle_os.system import process
from particle_os.system.confinement import GIB, Confinement

PROGRAM = "particle_os.egress.proxy"
DNS_PORT = 53
# The connections at once, and those that wait to be accepted; the agent passes fewer on.
CONNECTIONS, WAITING = 40, 64
CHUNK = 1 << 16
# The proxy ends its connections in less time.
END_SECONDS = 30.0
TAIL_LINES, LINE_BYTES = 20, 8192


class TwoWay(Protocol):
    """A connection of the VM: a socket, or a channel of paramiko."""

    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


class _Link:
    """A connection of the VM, and its connection to the proxy. Two threads copy the bytes."""

    def __init__(self, ends: tuple[TwoWay, TwoWay]) -> None:
        self._ends = ends
        self._lock = threading.Lock()
        self._running = 2
        self._threads = [
            threading.Thread(target=self._copy, args=pair, daemon=True)
            for pair in (ends, ends[::-1])
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_open(self) -> bool:
        return self._running > 0

    def close(self) -> None:
        self._close_ends()
        for thread in self._threads:
            thread.join()

    def _copy(self, source: TwoWay, to: TwoWay) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                to.sendall(data)
        with suppress(OSError):
            to.shutdown(socket.SHUT_WR)
        with self._lock:
            self._running -= 1
        if not self.is_open:
            self._close_ends()

    def _close_ends(self) -> None:
        for end in self._ends:
            # This wakes a thread that reads from a socket; `close` wakes that of a channel.
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Gateway:
    """The proxy of a stage; use `gateway`. Any thread may call `take`.

    `hosts` has the record of the proxy when the gateway has ended.
    """

    def __init__(self, proxy: socket.socket) -> None:
        self.hosts = Hosts()
        self._proxy = proxy
        self._waiting: queue.Queue[TwoWay | None] = queue.Queue(WAITING)
        self._links: list[_Link] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def take(self, stream: TwoWay) -> bool:
        """Passes a connection of the VM to the proxy. Returns False if too many wait.

        It never waits, so that a thread that serves other connections can call it.
        """
        try:
            self._waiting.put_nowait(stream)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Lets the proxy end, closes all connections, and returns when no thread is left."""
        with suppress(OSError):
            self._proxy.shutdown(socket.SHUT_RDWR)
        self._waiting.put(None)
        self._acceptor.join()
        for link in self._links:
            link.close()

    def _accept(self) -> None:
        """Connects the connections that wait, until one is None."""
        while (stream := self._waiting.get()) is not None:
            self._links = [link for link in self._links if link.is_open]
            try:
                if len(self._links) >= CONNECTIONS:
                    raise ConnectionRefusedError
                self._links.append(_Link((stream, self._connected())))
            except OSError:
                # Too many connections, or the proxy has ended, which `gateway` reports.
                stream.close()

    def _connected(self) -> socket.socket:
        """A new connection to the proxy. Raises OSError."""
        ours, its = socket.socketpair()
        with its:
            try:
                socket.send_fds(self._proxy, [b"\n"], [its.fileno()])
            except OSError:
                ours.close()
                raise
        return ours


@contextmanager
def gateway(hosts: Sequence[str]) -> Iterator[Gateway]:
    """Runs a proxy that reaches `hosts` (`NetworkHost`) until the context ends.

    Raises InfrastructureError if the proxy cannot run, or ends before the context.
    """
    tally, complaints = HostTally(), collections.deque[str](maxlen=TAIL_LINES)

    def read(output: IO[bytes]) -> None:
        for line in iter(lambda: output.readline(LINE_BYTES), b""):
            if not tally.add(line):
                complaints.append(printable(line.decode("utf-8", "replace").rstrip()))

    ours, its = socket.socketpair()
    with ExitStack() as stack:
        stack.enter_context(ours)
        with its:
            argv = [sys.executable, "-B", "-P", "-S", "-m", PROGRAM, *hosts]
            child = stack.enter_context(
                process.started(argv, within=_within(hosts), env=_path(), stdin=its.fileno())
            )
        assert child.stdout is not None
        reader = threading.Thread(target=read, args=(child.stdout,), daemon=True)
        reader.start()
        opened = Gateway(ours)
        try:
            yield opened
        finally:
            opened.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(child, END_SECONDS)
            process.end_group(child)
            reader.join()
            opened.hosts = tally.result()
    if child.returncode != 0:
        why = "the proxy for the stage's hosts has failed"
        raise InfrastructureError(why, tail=tuple(complaints))


def _packages() -> list[Path]:
    """The directories that hold our packages: all that the proxy imports is ours, or Python's."""
    return [Path(str(resources.files(name))).parent for name in ("particle_os", "particle_agent")]


def _path() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(map(str, _packages()))}


def _within(hosts: Sequence[str]) -> Confinement:
    ports = {port for host in hosts for port in HostPattern.written(host).ports}
    # Python may lie outside of the system's directories.
    reads = (*_packages(), Path(sys.base_prefix))
    return Confinement(reads=reads, connects=(DNS_PORT, *sorted(ports)), memory=GIB)

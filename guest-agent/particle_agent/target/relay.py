"""Passes connections from a network namespace to another one."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from particle_agent.contract.hosts import CONNECTIONS
from particle_agent.target.system_calls import CLONE_NEWNET, call

LOOPBACK = "127.0.0.1"
CHUNK = 1 << 16


class Relay:
    """Passes connections on until `close`.

    They come from `listener`, and go to the port `outside` of 127.0.0.1 in the namespace of the
    descriptor `namespace`.
    """

    def __init__(self, listener: socket.socket, namespace: int, outside: int) -> None:
        self._listener = listener
        self._namespace = namespace
        self._outside = outside
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Ends all connections."""
        # This wakes the threads that wait for connections and for data.
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._closed = True
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()

    def _accept(self) -> None:
        # The threads that this thread starts are in its namespace.
        call("setns", self._namespace, CLONE_NEWNET)
        with suppress(OSError):
            while True:
                self._free.acquire()
                connection, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(connection,), daemon=True).start()

    def _pass_on(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                with socket.create_connection((LOOPBACK, self._outside)) as proxy:
                    with self._lock:
                        if self._closed:
                            return
                        self._open |= {connection, proxy}
                    try:
                        self._copy_both(connection, proxy)
                    finally:
                        with self._lock:
                            self._open -= {connection, proxy}
        finally:
            self._free.release()

    def _copy_both(self, connection: socket.socket, proxy: socket.socket) -> None:
        back = threading.Thread(target=_copy, args=(proxy, connection), daemon=True)
        back.start()
        _copy(connection, proxy)
        back.join()


def _copy(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            to.sendall(data)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)

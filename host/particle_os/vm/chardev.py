"""A Unix socket of QEMU's that is listened to."""

from __future__ import annotations

import socket
import threading

ANSWER_LIMIT = 4 << 20


class Channel:
    """Collects in the background what a socket sends, up to a limit."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._data = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while chunk := self._socket.recv(65536):
                room = ANSWER_LIMIT - len(self._data)
                self._data += chunk[: max(0, room)]
        except OSError:
            return

    @property
    def data(self) -> bytes:
        return bytes(self._data)

    def forget(self) -> None:
        """Drops what has come so far."""
        # In place: the thread may be adding to it.
        del self._data[:]

    def wait_for_end(self, seconds: float) -> None:
        """Waits until the other side has closed, so that all that it sent is here."""
        self._thread.join(seconds)

    def send(self, data: bytes) -> None:
        """Sends to the machine; what it does not take is lost."""
        try:
            self._socket.sendall(data)
        except OSError:
            return

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(5)
        self._socket.close()

"""QEMU's character devices on Unix sockets (qemu(1), -chardev socket)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import tenacity

from particle_os.errors import VmError
from particle_os.system.deadline import Deadline

ANSWER_LIMIT = 4 << 20


def connect_unix(
    directory: Path, name: str, deadline: Deadline, alive: Callable[[], bool]
) -> socket.socket:
    """Connects to the Unix socket `name` in `directory`, whose path may be of any length.

    Tries until the socket exists. Raises VmError when the deadline passes or when QEMU is no longer
    `alive`.
    """
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_delay(deadline.remaining()),
            wait=tenacity.wait_fixed(0.02),
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, OSError) and alive()),
            reraise=True,
        ):
            with attempt:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    connection.connect(f"/proc/self/fd/{descriptor}/{name}")
                except OSError:
                    connection.close()
                    raise
    except OSError as error:
        raise VmError(f"QEMU does not answer on its socket {name}: {error}") from error
    finally:
        os.close(descriptor)
    return connection


class Chardev:
    """Collects the machine's output to a device in the background, up to ANSWER_LIMIT bytes."""

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
        """Drops the data received so far."""
        # The deletion is in place because the thread may be adding data.
        del self._data[:]

    def wait_for_end(self, seconds: float) -> None:
        """Waits up to `seconds` until QEMU closes the socket; then `data` is complete."""
        self._thread.join(seconds)

    def send(self, data: bytes) -> None:
        """Sends `data` to the machine; data that the machine does not accept is lost."""
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


@contextmanager
def connected(
    directory: Path, name: str, deadline: Deadline, alive: Callable[[], bool]
) -> Iterator[Chardev]:
    """Yields the device on the socket that `connect_unix` finds; the context closes the device."""
    device = Chardev(connect_unix(directory, name, deadline, alive))
    try:
        yield device
    finally:
        device.close()

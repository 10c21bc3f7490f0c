"""The connection of pytest to the boot test, in the process of pytest."""

from __future__ import annotations

import base64
import functools
import json
import os
import socket
from typing import Any

# The variable with the number of the connection's file descriptor.
DESCRIPTOR = "PARTICLE_OS_TESTS"


class BootTestLink:
    """The connection to the boot test."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")

    def tell(self, **message: object) -> None:
        """Sends a message that has no answer."""
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def run(self, command: bytes) -> dict[str, Any]:
        """Lets the image run a command of the shell. Raises RuntimeError when it has no result."""
        self.tell(run=base64.b64encode(command).decode())
        answer: dict[str, Any] = json.loads(self._lines.readline() or b'{"error": "it is over"}')
        if "error" in answer:
            raise RuntimeError(f"the image did not run a command: {answer['error']}")
        return answer


@functools.cache
def link() -> BootTestLink:
    """The connection; pytest replaces standard input while it collects and runs tests."""
    return BootTestLink(socket.socket(fileno=int(os.environ[DESCRIPTOR])))

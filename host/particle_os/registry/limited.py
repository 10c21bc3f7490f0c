"""Connections of urllib3 whose handshake, headers and redirections have a time limit.

urllib3's own limits are for each read: a peer that sends a byte now and then stretches them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

from particle_os.system.deadline import Deadline, cut_off

# All of a handshake, and all of the headers of an answer.
HEAD_SECONDS = 60.0
# Bytes of a redirection, which urllib3 would read to its end.
REDIRECTION_BYTES = 1 << 16


@contextmanager
def _limited(connection: socket.socket) -> Iterator[None]:
    """Cuts a connection off in time. Raises TimeoutError then."""
    deadline = Deadline.after(HEAD_SECONDS, "the answer of a registry")
    with cut_off(connection, deadline):
        yield
    # The end of a connection looks like the end of the headers.
    if deadline.is_over:
        raise TimeoutError(f"no whole answer within {HEAD_SECONDS:.0f} s")


class LimitedHTTP(HTTPConnection):
    """`heard` is the socket of the last answer.

    http.client sets `sock` to None before the content of an answer that ends with the connection.
    """

    heard: socket.socket | None = None

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        # TLS to a proxy and to the registry: urllib3's own object, which has a socket.
        self.heard = getattr(self.sock, "socket", self.sock)
        assert self.heard is not None
        with _limited(self.heard):
            answer = super().getresponse()
            if answer.get_redirect_location():
                answer.read(REDIRECTION_BYTES, decode_content=False)
                if not answer.closed:
                    answer.close()
                    self.close()
            return answer


class LimitedHTTPS(LimitedHTTP, HTTPSConnection):
    """The handshakes with the proxy and with the registry are limited, too."""

    _handshake: ExitStack

    def connect(self) -> None:
        with ExitStack() as self._handshake:
            super().connect()

    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        # TLS takes the socket over; a duplicate ends the same connection.
        duplicate = self._handshake.enter_context(made.dup())
        self._handshake.enter_context(_limited(duplicate))
        return made


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = LimitedHTTP


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = LimitedHTTPS


def limited(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    """The manager, whose connections have limits."""
    pools: dict[str, Any] = {"http": _PlainPool, "https": _SecurePool}
    manager.pool_classes_by_scheme = pools
    return manager

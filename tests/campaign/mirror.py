"""A mirror on loopback that hands on a real one for some bytes, and then cuts, lies or stalls."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from tests import debian

Manner = Literal["cut", "garbage", "slow"]
BLOCK = 4096


@functools.cache
def upstream_url() -> str:
    """The mirror that is handed on, without "/" at its end."""
    return debian.mirror().rstrip("/")


@dataclass
class Mirror:
    """After `left` bytes the mirror misbehaves in its manner, and calls `begun` once."""

    manner: Manner
    left: int
    begun: Callable[[], None] = lambda: None
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def take(self, size: int) -> bool:
        """Whether the mirror still behaves for `size` more bytes."""
        with self.lock:
            behaved, self.left = self.left > 0, self.left - size
            if behaved and self.left <= 0:
                self.begun()
            return self.left > 0

    def misbehave(self, block: bytes, to: BinaryIO) -> None:
        """Sends the block in its manner; raises ConnectionError to cut the connection."""
        if self.manner == "garbage":
            to.write(os.urandom(len(block)))
            return
        for byte in block if self.manner == "slow" else b"":
            to.write(bytes([byte]))
            to.flush()
            if self.over.wait(1):
                break
        raise ConnectionResetError


@contextmanager
def served(mirror: Mirror) -> Iterator[str]:
    """Serves the mirror on loopback; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """The log is of no interest."""

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                _answer(self, mirror)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            mirror.over.set()
            server.shutdown()


def _answer(handler: http.server.BaseHTTPRequestHandler, mirror: Mirror) -> None:
    try:
        upstream = urllib.request.urlopen(f"{upstream_url()}{handler.path}", timeout=60)
    except urllib.error.HTTPError as error:
        handler.send_error(error.code)
        return
    with upstream:
        handler.send_response(200)
        handler.send_header("Content-Length", upstream.headers["Content-Length"])
        handler.end_headers()
        while block := upstream.read(BLOCK):
            if mirror.take(len(block)):
                handler.wfile.write(block)
            else:
                mirror.misbehave(block, handler.wfile)

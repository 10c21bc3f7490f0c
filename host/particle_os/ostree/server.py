"""Serves a repository to this machine alone, for trying updates. It changes nothing."""

from __future__ import annotations

import functools
import shutil
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from particle_os.ostree.files import RepositoryFiles

HOST = "127.0.0.1"
# A client that sends or takes nothing for so long is gone.
CLIENT_SECONDS = 30.0
CLIENTS, CHUNK = 32, 1 << 16


class RepositoryServer(ThreadingHTTPServer):
    """A server of the files of a repository on a port of 127.0.0.1; 0 takes a free one."""

    daemon_threads = True

    def __init__(self, files: RepositoryFiles, port: int) -> None:
        super().__init__((HOST, port), functools.partial(_Handler, files))
        self._free = threading.Semaphore(CLIENTS)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: socket.socket | Any, client_address: Any) -> None:
        """A client that goes away is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "particle-os", ""
    timeout = CLIENT_SECONDS

    def __init__(self, files: RepositoryFiles, *arguments: Any) -> None:
        self._files = files
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def _answer(self, *, with_content: bool) -> None:
        name = unquote(urlsplit(self.path).path).lstrip("/")
        found = self._files.open(name)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        stream, size = found
        with stream:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if with_content:
                shutil.copyfileobj(stream, self.wfile, CHUNK)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base's name
        """Prints nothing: a client chooses the text."""

"""Requests to an HTTP proxy, as RFC 9110 and RFC 9112 define them.

A guest writes them. Whatever is unusual is refused: no server may read a request in another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from particle_agent.contract.hosts import AUTHORITY, HOST

# Bytes: the request line and the headers.
HEAD_LIMIT = 32768
HEADERS_LIMIT = 100
HTTP_PORT = 80
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rf"({_WORD}) (\S+) (HTTP/1\.[01])")
_HEADER = re.compile(rf"({_WORD}):([\t\x20-\x7e\x80-\xff]*)")
_URI = re.compile(r"[Hh][Tt][Tt][Pp]://([^/?#]*)([!-~]*)")
# The headers that are for the proxy alone (RFC 9110, 7.6.1), and the host, which the URI names.
_NOT_PASSED_ON = {
    "connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip


class BadRequest(Exception):
    """The request is malformed, or needs what the proxy does not do; the text says why."""


@dataclass(frozen=True)
class Request:
    """A request for a host, in small letters, and a port.

    With `tunnel`, the connection carries any bytes after the answer. Otherwise the server gets
    `head` and the next `body` bytes.
    """

    host: str
    port: int
    tunnel: bool
    head: bytes = b""
    body: int = 0


def parse(head: bytes) -> Request:
    """Reads the head of a request, up to the empty line. Raises BadRequest."""
    # RFC 9112, 2.2: servers may read a lone CR or LF as the end of a line.
    lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    if any(char in line for line in lines for char in "\r\n\0"):
        raise BadRequest("the head has a stray control character")
    if (found := _REQUEST_LINE.fullmatch(lines[0])) is None:
        raise BadRequest("the first line is no request line of HTTP/1.1")
    method, target, version = found.groups()
    headers = list(_headers(lines[1:]))
    if method == "CONNECT":
        return Request(*_authority(target), tunnel=True)
    return _forwarded(method, target, version, headers)


def _forwarded(
    method: str, target: str, version: str, headers: Sequence[tuple[str, str]]
) -> Request:
    """A request with an absolute URI. The server gets one request, and closes the connection.

    The server gets the version of the program, which then understands the form of the answer.
    """
    if (found := _URI.fullmatch(target)) is None:
        raise BadRequest("the proxy needs an absolute URI of http, or CONNECT")
    authority, rest = found.groups()
    if "@" in authority:
        raise BadRequest("the URI has a user name")
    host, port = _authority(authority if ":" in authority else f"{authority}:{HTTP_PORT}")
    path = rest.partition("#")[0]
    path = path if path.startswith("/") else f"/{path}"
    named = host if port == HTTP_PORT else f"{host}:{port}"
    lines = [f"{method} {path} {version}", f"Host: {named}", "Connection: close"]
    # Without the length, the server would read the body as the next request.
    dropped = (_NOT_PASSED_ON | set(_listed(headers, "connection"))) - {"content-length"}
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in dropped]
    data = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return Request(host, port, tunnel=False, head=data, body=_body_length(headers))


def _headers(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    if len(lines) > HEADERS_LIMIT:
        raise BadRequest(f"the request has more than {HEADERS_LIMIT} headers")
    for line in lines:
        if (found := _HEADER.fullmatch(line)) is None:
            raise BadRequest("a header is malformed")
        yield found.group(1), found.group(2).strip(" \t")


def _authority(text: str) -> tuple[str, int]:
    """The host and the port in a text such as 'example.org:443'."""
    host, _, port = text.lower().rpartition(":")
    host = host.removesuffix(".")
    if re.fullmatch(HOST, host) is None or re.fullmatch(AUTHORITY, f"{host}:{port}") is None:
        raise BadRequest("the request names no host and port")
    return host, int(port)


def _listed(headers: Sequence[tuple[str, str]], name: str) -> Iterator[str]:
    """The words in the headers of this name, in small letters."""
    for key, value in headers:
        if key.lower() == name:
            yield from (word.strip().lower() for word in value.split(","))


def _body_length(headers: Sequence[tuple[str, str]]) -> int:
    if list(_listed(headers, "transfer-encoding")):
        raise BadRequest("the proxy needs the length of a body in advance (Content-Length)")
    lengths = list(_listed(headers, "content-length"))
    if len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,15}", each) for each in lengths):
        raise BadRequest("Content-Length is malformed")
    return int(lengths[0]) if lengths else 0

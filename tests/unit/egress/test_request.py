"""Requests to the proxy, from guests that try to be read in two ways."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from particle_agent.contract.hosts import HOST
from particle_os.egress.request import HEADERS_LIMIT, BadRequest, Request, parse

from ...limited import limited


def head(line, *headers):
    return "\r\n".join([line, *headers, "", ""]).encode("latin-1")


def test_a_tunnel_has_a_host_and_a_port():
    assert parse(head("CONNECT Deb.Example.ORG:443 HTTP/1.1", "Host: other.example")) == Request(
        "deb.example.org", 443, tunnel=True
    )


def test_a_request_is_passed_on_with_the_host_of_its_uri():
    found = parse(
        head(
            "GET http://Example.org:8080/a/b?c=d#e HTTP/1.0",
            "Host: evil.example",
            "Accept: */*",
            "host:evil2.example",
            "Content-Length: 12",
        )
    )
    assert (found.host, found.port, found.tunnel, found.body) == ("example.org", 8080, False, 12)
    assert found.head == head(
        "GET /a/b?c=d HTTP/1.0",
        "Host: example.org:8080",
        "Connection: close",
        "Accept: */*",
        "Content-Length: 12",
    )


@pytest.mark.parametrize(
    ("uri", "path", "host"),
    [
        ("http://a.example", "/", "a.example"),
        ("HTTP://a.example.", "/", "a.example"),
        ("http://a.example:80/x", "/x", "a.example"),
        ("http://a.example?q", "/?q", "a.example"),
        ("http://192.0.2.1/@/x:y", "/@/x:y", "192.0.2.1"),
    ],
)
def test_a_uri_has_a_path(uri, path, host):
    found = parse(head(f"GET {uri} HTTP/1.1"))
    assert (found.host, found.port) == (host, 80)
    assert found.head.startswith(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n".encode())


def test_headers_for_the_proxy_stay_there():
    names = ("Proxy-Authorization", "Proxy-Connection", "Upgrade", "TE", "Keep-Alive", "X-Hop")
    found = parse(
        head(
            "GET http://a.example/ HTTP/1.1",
            *(f"{name}: x" for name in names),
            "Connection: keep-alive, x-hop, Content-Length",
            "Content-Length: 3",
        )
    )
    lines = found.head.decode().split("\r\n")
    # Without its length, the body would be the next request.
    assert lines[1:-2] == ["Host: a.example", "Connection: close", "Content-Length: 3"]


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1",
        "GET a.example/ HTTP/1.1",
        "GET https://a.example/ HTTP/1.1",
        "GET ftp://a.example/ HTTP/1.1",
        "GET http://user@a.example/ HTTP/1.1",
        "GET http://a.example@evil.example/ HTTP/1.1",
        "GET http://a.example:80@evil.example/ HTTP/1.1",
        "GET http://[::1]/ HTTP/1.1",
        "GET http://[::1]:80/ HTTP/1.1",
        "GET http://a.example:0/ HTTP/1.1",
        "GET http://a.example:65536/ HTTP/1.1",
        "GET http://a.example:080/ HTTP/1.1",
        "GET http://a.example:/ HTTP/1.1",
        "GET http://127.1/ HTTP/1.1",
        "GET http://2130706433/ HTTP/1.1",
        "GET http://0x7f000001/ HTTP/1.1",
        "GET http://0177.0.0.1/ HTTP/1.1",
        "GET http://a_b..example/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http://a.example\\@evil.example/ HTTP/1.1",
        "GET http://a.example%00.evil.example/ HTTP/1.1",
        "GET http://b\u00fccher.example/ HTTP/1.1",
        "GET http://a.example/ HTTP/2",
        "GET http://a.example/ HTTP/1.1 ",
        "GET  http://a.example/ HTTP/1.1",
        "GET http://a.example/",
        "CONNECT a.example HTTP/1.1",
        "CONNECT a.example:0 HTTP/1.1",
        "CONNECT a.example:99999 HTTP/1.1",
        "CONNECT [::1]:443 HTTP/1.1",
        "CONNECT user@a.example:443 HTTP/1.1",
        "CONNECT http://a.example:443 HTTP/1.1",
        "CONNECT 127.1:443 HTTP/1.1",
        "connect a.example:443 HTTP/1.1",
        "",
        "\0",
    ],
)
def test_an_unusual_request_is_refused(line):
    with pytest.raises(BadRequest):
        parse(head(line))


@pytest.mark.parametrize(
    "headers",
    [
        ["Transfer-Encoding: chunked"],
        ["transfer-encoding: identity, chunked"],
        ["Content-Length: 1", "Content-Length: 1"],
        ["Content-Length: 1, 2"],
        ["Content-Length: +1"],
        ["Content-Length: 0x10"],
        ["Content-Length:"],
        ["Content-Length : 1"],
        [" folded: line"],
        ["A: b\nHost: evil.example"],
        ["A: b\rHost: evil.example"],
        ["A: b\0"],
        ["A"],
        [": b"],
        ["A: b"] * (HEADERS_LIMIT + 1),
    ],
)
def test_an_unusual_header_is_refused(headers):
    with pytest.raises(BadRequest):
        parse(head("POST http://a.example/ HTTP/1.1", *headers))


PIECES = (
    b"GET ", b"CONNECT ", b"http://", b"a.example", b"192.0.2.1", b"[::1]", b":", b"80", b"0",
    b"@", b"/", b"?", b"#", b" ", b" HTTP/1.1", b"\r\n", b"\r", b"\n", b"Host: ", b"\xff", b"\0",
    b"Content-Length: 3",
)  # fmt: skip


def is_plain(data):
    """Whether the head is refused, or is a request that reads in one way only."""
    try:
        found = parse(data + b"\r\n\r\n")
    except BadRequest:
        return True
    lines = found.head.split(b"\r\n")
    hosts = [line for line in lines if line.lower().startswith(b"host:")]
    named = found.host if found.port == 80 else f"{found.host}:{found.port}"
    whole = found.tunnel or (lines[-2:] == [b"", b""] and b"" not in lines[:-2])
    return (
        re.fullmatch(HOST, found.host) is not None
        and 0 < found.port < 65536
        and hosts == ([] if found.tunnel else [f"Host: {named}".encode()])
        and whole
        and not any(byte in line for line in lines for byte in (b"\r", b"\n", b"\0"))
    )


@given(st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(PIECES)).map(b"".join)))
@example(b"GET http://a.example/ HTTP/1.1\r\nA: \xff")
@example(b"GET http://a.example:81/ HTTP/1.1\r\nHost: b\r\nHost:c")
@example(b"CONNECT a.example:443 HTTP/1.1")
def test_any_bytes_are_a_plain_request_or_are_refused(data):
    assert is_plain(data)


@pytest.mark.slow
def test_a_header_of_blanks_takes_little_time():
    setup = "from particle_os.egress import request"
    action = """
    head = b"GET http://a/ HTTP/1.1\\r\\na:" + b" " * 30000 + b"\\x01\\r\\n\\r\\n"
    try:
        request.parse(head)
    except request.BadRequest:
        print("refused")
    """
    assert limited(setup, action) == "refused\n"

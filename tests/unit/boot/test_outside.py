"""Tests of checks from the host, against real servers on the loopback interface."""

import socket
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
from particle_os.boot import outside
from particle_os.recipe.checks.network import HttpCheck, PortCheck
from particle_os.recipe.checks.system import UnitCheck

from ...waiting import POLL_SECONDS, moment, plenty


@contextmanager
def server(*pieces, close=True):
    """Accepts one connection, reads a request, sends `pieces`; yields the port."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # The test has ended without a connection.
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)
                if not close:
                    done.wait()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()


def monitor(forwarded, state="ESTABLISHED"):
    table = f"  TCP[{state}]  13  127.0.0.1 {forwarded}  10.0.2.15  8080  0  0\n"
    return SimpleNamespace(forwards=lambda d: {8080: forwarded}, human=lambda line, d: table)


def reach(check, forwarded, deadline=None, **options):
    return outside.reach(check, monitor(forwarded, **options), deadline or plenty())


def test_only_ports_that_are_looked_at_from_outside_are_forwarded():
    checks = [
        UnitCheck(unit="a.service"), PortCheck(port=22), PortCheck(port=25, reachable=True),
        HttpCheck(http="/", port=8080), HttpCheck(http="/x", port=8080),
    ]  # fmt: skip
    assert outside.ports(checks) == (25, 8080)
    assert outside.reach(checks[0], None, None) is None
    assert outside.reach(checks[1], None, None) is None


@pytest.mark.parametrize(
    ("wanted", "answer", "holds", "detail"),
    [
        ({}, b"HTTP/1.0 200 OK\r\n\r\nhello\n", True, "hello"),
        ({"contains": "hello"}, b"HTTP/1.0 200 OK\r\n\r\nhello\n", True, "hello"),
        ({"contains": "bye"}, b"HTTP/1.0 200 OK\r\n\r\nhello\n", False, "'bye' is not in"),
        ({"status": 404}, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", True, "nothing"),
        (
            {},
            b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy",
            False,
            "status 503, not 200: busy",
        ),
        ({}, b"HTTP/1.0 200 OK\r\n\r\nh\xff\n", True, "h\ufffd"),
        ({}, b"\x00\xff not HTTP\r\n\r\n", False, "no answer"),
        ({}, b"", False, "no answer"),
    ],
)
def test_http(wanted, answer, holds, detail):
    with server(answer) as port:
        found = reach(HttpCheck(http="/", port=8080, **wanted), port)
    assert found.holds is holds
    assert detail in found.detail


def test_a_server_that_never_ends_is_left():
    with server(b"HTTP/1.0 200 OK\r\n\r\nsome", close=False) as port:
        found = reach(HttpCheck(http="/", port=8080), port, moment())
    assert not found.holds


def test_a_flood_is_read_in_part():
    flood = b"x" * (1 << 20)
    with server(b"HTTP/1.0 200 OK\r\n\r\n", flood, close=False) as port:
        found = reach(HttpCheck(http="/", port=8080, contains="x"), port)
    assert found.holds


def test_nothing_is_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert not reach(HttpCheck(http="/", port=8080), port).holds


def test_a_port_is_reachable_when_the_guest_has_taken_the_connection(monkeypatch):
    with server() as port:
        assert reach(PortCheck(port=8080, reachable=True), port).holds
    monkeypatch.setattr(outside, "CONNECT_SECONDS", 0.3)
    with server() as port:
        found = reach(PortCheck(port=8080, reachable=True), port, state="SYN_SENT")
    assert not found.holds


def test_an_answer_that_comes_byte_by_byte_ends_at_the_deadline():
    """Each byte comes in time; the whole header would come long after the deadline."""

    def drip():
        yield b"HTTP/1.1 200 OK\r\nX: "
        for _ in range(100):
            pause.wait(POLL_SECONDS)
            yield b"x"
        yield b"\r\n\r\n"

    pause = threading.Event()
    with dripping(drip) as port:
        found = reach(HttpCheck(http="/", port=8080), port, moment())
    assert not found.holds
    assert "no answer" in found.detail


@contextmanager
def dripping(pieces):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                for piece in pieces():
                    connection.sendall(piece)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]

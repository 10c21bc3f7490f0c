"""The gateway runs the real proxy, confined, and leaves nothing behind."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from particle_os.egress import gateway as module
from particle_os.egress.gateway import CONNECTIONS, WAITING, Gateway, gateway
from particle_os.errors import InfrastructureError
from particle_os.system import process
from particle_os.system.confinement import GIB, NETWORK_ABI, landlock_abi

from ...waiting import HANG_SECONDS, is_running, plenty, until


@pytest.fixture
def server():
    """A web server on 127.0.0.1; `asked` has the paths that it was asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.asked = []
        thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def opened(found):
    """A program's connection to the gateway."""
    ours, its = socket.socketpair()
    ours.settimeout(HANG_SECONDS)
    assert found.take(its)
    return ours


def ask(found, data):
    answer = b""
    with opened(found) as connection, suppress(ConnectionError):
        connection.sendall(data)
        while more := connection.recv(65536):
            answer += more
    return answer


def children():
    task = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return [int(pid) for pid in task.read_text().split()]


def test_a_listed_host_is_reached_and_another_is_not(server):
    port = server.server_address[1]
    with gateway([f"localhost:{port}"]) as found:
        assert b"hello" in ask(found, f"GET http://localhost:{port}/a HTTP/1.1\r\n\r\n".encode())
        assert b"hello" in ask(
            found, f"CONNECT localhost:{port} HTTP/1.1\r\n\r\nGET /b HTTP/1.0\r\n\r\n".encode()
        )
        assert b"403" in ask(found, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
        assert b"403" in ask(found, b"CONNECT localhost:1 HTTP/1.1\r\n\r\n")
    assert server.asked == ["/a", "/b"]
    (reached,) = found.hosts.reached
    assert (reached.host, reached.port, reached.requests) == ("localhost", port, 2)
    assert reached.sent > 50
    assert reached.received > 50
    refused = [(each.host, each.port, each.reason) for each in found.hosts.refused]
    assert refused == [("127.0.0.1", port, "not-listed"), ("localhost", 1, "not-listed")]


def test_nothing_is_left_of_a_gateway():
    threads, descriptors = threading.active_count(), os.listdir("/proc/self/fd")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with gateway([f"localhost:{port}"]) as found:
            (child,) = children()
            idle, tunnel, half = (opened(found) for _ in range(3))
            tunnel.sendall(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n".encode())
            assert tunnel.recv(99)
            half.sendall(b"GET http://loc")
            tunnel.sendall(b"x" * 100)
            (accepted, _), got = silent.accept(), 0
            while got < 100:
                got += len(accepted.recv(100))
        assert not is_running(child)
        for connection in (idle, tunnel, half, accepted):
            with connection:
                with suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
    assert threading.active_count() == threads
    assert os.listdir("/proc/self/fd") == descriptors
    (reached,) = found.hosts.reached
    assert reached.sent == 100, "a connection that the end cuts off counts"


def test_the_end_of_the_proxy_is_a_failure():
    with pytest.raises(InfrastructureError, match="proxy"):
        with gateway(["localhost"]) as found:
            connection = opened(found)
            os.kill(children()[0], signal.SIGKILL)
            assert connection.recv(1) == b""
            connection.close()
            until(lambda: ask(found, b"") == b"")


def test_an_error_of_the_proxy_is_told(monkeypatch):
    monkeypatch.setattr(module, "PROGRAM", "particle_os.egress.nothing")
    with pytest.raises(InfrastructureError) as raised, gateway(["localhost"]):
        pass
    assert "No module named particle_os.egress.nothing" in raised.value.tail[-1]


def test_too_many_connections_at_once_are_closed():
    with gateway(["localhost"]) as found:
        connections = [opened(found) for _ in range(CONNECTIONS)]
        with opened(found) as more:
            assert more.recv(1) == b""
        for connection in connections:
            connection.close()
        # One that ends makes room.
        until(lambda: b"400" in ask(found, b"x\r\n\r\n"))


class Stuck(Gateway):
    """A gateway that accepts no connection."""

    def _accept(self):
        pass


def test_connections_that_nothing_accepts_are_refused_without_waiting():
    ours, its = socket.socketpair()
    with ours, its:
        found = Stuck(ours)
        assert all(found.take(its) for _ in range(WAITING))
        assert not found.take(its)


SPY = """
import socket, sys
try:
    open(sys.argv[1])
    print("opens")
except PermissionError:
    print("denied")
for port in sys.argv[2:]:
    try:
        socket.create_connection(("127.0.0.1", int(port))).close()
        print("connects")
    except PermissionError:
        print("denied")
"""


@pytest.mark.skipif(landlock_abi() < NETWORK_ABI, reason="Landlock restricts TCP since Linux 6.7")
def test_the_proxy_opens_no_file_of_the_user_and_connects_to_listed_ports_only(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        ports = [str(each.getsockname()[1]) for each in (one, two)]
        argv = [sys.executable, "-S", "-c", SPY, str(secret), *ports]
        within = module._within([f"a.example:{ports[0]}"])
        done = process.capture(argv, deadline=plenty(), what="the spy", limit=999, within=within)
        assert done.split() == [b"denied", b"connects", b"denied"]
        free = subprocess.run(argv, capture_output=True, check=True).stdout
        assert free.split() == [b"opens", b"connects", b"connects"]


def test_the_proxy_connects_to_names_and_the_listed_ports_in_little_memory():
    within = module._within(["a.example:8443", "b.example"])
    assert within.connects == (53, 80, 443, 8443)
    assert within.memory == GIB
    assert within.writes == ()

"""A stage with a list of hosts reaches one port only, in a namespace of its own."""

import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import nullcontext, suppress

import pytest
from particle_agent.contract.hosts import CONNECTIONS
from particle_agent.target import limits, relay
from particle_agent.target.limits import only_the_proxy

from ...acng import free_port
from ...waiting import HANG_SECONDS, until
from .test_limits import may_make_namespaces


@pytest.fixture
def relayed(monkeypatch):
    """A server, and a port that leads to it, without namespaces."""
    monkeypatch.setattr(limits, "no_network", lambda: nullcontext(0))
    monkeypatch.setattr(relay, "call", lambda *_: 0)
    with socket.create_server(("127.0.0.1", 0), backlog=2 * CONNECTIONS) as server:
        server.settimeout(HANG_SECONDS)
        yield server, free_port()


def connected(port):
    found = socket.create_connection(("127.0.0.1", port), HANG_SECONDS)
    found.settimeout(HANG_SECONDS)
    return found


def test_bytes_go_in_both_directions_until_both_have_ended(relayed):
    server, port = relayed
    with only_the_proxy(port, server.getsockname()[1]), connected(port) as program:
        proxy, _ = server.accept()
        with proxy:
            program.sendall(b"a request" * 50_000)
            program.shutdown(socket.SHUT_WR)
            assert b"".join(iter(lambda: proxy.recv(65536), b"")) == b"a request" * 50_000
            proxy.sendall(b"an answer" * 50_000)
        assert b"".join(iter(lambda: program.recv(65536), b"")) == b"an answer" * 50_000


def test_the_end_of_the_stage_ends_its_connections(relayed):
    server, port = relayed
    with only_the_proxy(port, server.getsockname()[1]):
        program = connected(port)
        proxy, _ = server.accept()
        proxy.settimeout(HANG_SECONDS)
    with program, proxy:
        assert program.recv(1) == proxy.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connected(port)


def test_a_program_that_opens_many_connections_waits(relayed, monkeypatch):
    server, port = relayed
    waits, more = threading.Event(), []

    class Watched(threading.BoundedSemaphore):
        def acquire(self):
            if not super().acquire(blocking=False):
                waits.set()
                super().acquire()

    def one_more():
        with suppress(BlockingIOError):
            more.append(server.accept()[0])
        return more

    monkeypatch.setattr(relay.threading, "BoundedSemaphore", Watched)
    with only_the_proxy(port, server.getsockname()[1]):
        programs = [connected(port) for _ in range(CONNECTIONS + 1)]
        proxies = [server.accept()[0] for _ in range(CONNECTIONS)]
        server.setblocking(False)
        until(lambda: waits.is_set() or one_more())
        assert not one_more()
        server.setblocking(True)
        for end in (*programs[:CONNECTIONS], *proxies):
            end.close()
        programs[-1].sendall(b"at last")
        with programs[-1], server.accept()[0] as proxy:
            assert proxy.recv(7) == b"at last"


def test_a_proxy_that_is_gone_ends_the_connection(relayed):
    server, port = relayed
    place = server.getsockname()[1]
    server.close()
    with only_the_proxy(port, place), connected(port) as program:
        assert program.recv(1) == b""


@pytest.mark.slow
@pytest.mark.skipif(not may_make_namespaces(), reason="tests/vm tries it in the VM")
def test_the_port_leads_out_of_the_namespace_and_no_other_does():
    code = """
        import os, socket
        from particle_agent.target.limits import _loopback_up, only_the_proxy

        _loopback_up()
        server = socket.create_server(("127.0.0.1", 0))
        other = socket.create_server(("127.0.0.1", 0))
        before = os.readlink("/proc/self/ns/net")
        with only_the_proxy(3128, server.getsockname()[1]):
            print(os.readlink("/proc/self/ns/net") != before)
            program = socket.create_connection(("127.0.0.1", 3128), 300)
            proxy, _ = server.accept()
            proxy.sendall(b"out")
            print(program.recv(3))
            for place in (other.getsockname(), server.getsockname(), ("192.0.2.1", 80)):
                try:
                    socket.create_connection(place, 300)
                except OSError as error:
                    print(error.strerror)
        print(os.readlink("/proc/self/ns/net") == before)
    """
    argv = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c"]
    done = subprocess.run(
        [*argv, textwrap.dedent(code)], capture_output=True, text=True, timeout=HANG_SECONDS
    )
    refused = ["Connection refused"] * 2
    expected = ["True", "b'out'", *refused, "Network is unreachable", "True"]
    assert done.stdout.splitlines() == expected, done.stderr

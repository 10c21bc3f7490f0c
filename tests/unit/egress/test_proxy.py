"""The proxy of a stage, against programs and servers that misbehave."""

import asyncio
import socket

import pytest
from particle_os.egress import addresses
from particle_os.egress import proxy as proxy_module
from particle_os.egress.proxy import CONNECTIONS, Patience, Proxy
from particle_os.egress.request import HEAD_LIMIT

from ...waiting import HANG_SECONDS, POLL_SECONDS

PATIENT = Patience()
MOMENT = Patience(head=0.1, connect=0.1, idle=0.1)
NAME = "a.example.org"


class Server:
    """A server for one connection, which `answer(reader, writer)` answers."""

    def __init__(self, answer):
        self.asked = b""
        self._answer = answer

    async def __call__(self, reader, writer):
        await self._answer(self, reader, writer)
        writer.close()


async def hello(server, reader, writer):
    server.asked += await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")


async def everything(server, reader, writer):
    server.asked += await reader.read()
    writer.write(b"all")


async def silence(server, reader, writer):
    server.asked += await reader.read()


class World:
    """A proxy for the hosts `listed` in a loop of its own; names lead to `addresses`."""

    def __init__(self, monkeypatch, answer=hello, patience=PATIENT, listed=(NAME,)):
        self.told = []
        self.addresses = ["192.0.2.1", "192.0.2.2"]
        self.tried = []
        self.server = Server(answer)
        self.proxy = Proxy(listed, self.told.append, patience)
        # The addresses are of no interface, whatever the host's own address is.
        monkeypatch.setattr(addresses, "_is_of_an_interface", lambda address: False)
        monkeypatch.setattr(proxy_module, "resolve", self._resolve)
        monkeypatch.setattr(proxy_module.asyncio, "open_connection", self._connect)

    def _resolve(self, host, port):
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return self.addresses

    async def _connect(self, address, port):
        self.tried.append(address)
        if address.endswith(".1"):
            raise ConnectionRefusedError
        ours, its = await pair()
        self.serving = asyncio.create_task(self.server(*its))
        return ours

    def ask(self, *pieces):
        """The answer to the bytes of a program."""

        async def talk(reader, writer):
            for piece in pieces:
                writer.write(piece)
            return await reader.read()

        return self.talk(talk)

    def talk(self, talk):
        """The result of `talk(reader, writer)`, the program's side of a connection."""

        async def whole():
            ours, its = await pair(first=1000)
            served = asyncio.create_task(self.proxy.serve(*its))
            result = await talk(*ours)
            ours[1].close()
            await served
            return result

        return asyncio.run(asyncio.wait_for(whole(), HANG_SECONDS))


async def pair(first=HEAD_LIMIT):
    """Two ends of a connection; the first one reads at most 2 * `first` bytes in advance."""
    ends = socket.socketpair()
    for end in ends:
        # What the kernel holds back cannot get lost.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    limits = (first, HEAD_LIMIT)
    return [
        await asyncio.open_unix_connection(sock=end, limit=limit)
        for end, limit in zip(ends, limits, strict=True)
    ]


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_a_listed_host_answers(world):
    answer = world.ask(b"GET http://a.example.org/x HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert answer == b"HTTP/1.1 200 OK\r\n\r\nhello"
    request = b"GET /x HTTP/1.1\r\nHost: a.example.org\r\nConnection: close\r\n\r\n"
    assert world.server.asked == request
    assert world.tried == world.addresses, "the second one answers"
    assert world.told == [{"host": NAME, "port": 80, "sent": len(request), "received": len(answer)}]


def test_the_last_address_says_why_no_address_answers(world):
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(proxy_module._connect(["192.0.2.1"], 80))
    with pytest.raises(OSError, match="there is no address"):
        asyncio.run(proxy_module._connect([], 80))


def test_a_second_request_on_the_connection_goes_nowhere(world):
    first = b"GET http://a.example.org/ HTTP/1.1\r\n\r\n"
    world.ask(first, b"GET http://evil.example/ HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n")
    assert world.server.asked.count(b"GET") == 1
    assert [each["host"] for each in world.told] == [NAME]


def test_a_body_is_passed_on_and_no_byte_more(monkeypatch):
    async def body(server, reader, writer):
        server.asked += await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(4)
        writer.write(b"thanks")
        # A byte more would be here; the end of the answer ends the connection.
        reader.feed_eof()
        server.asked += await reader.read()

    world = World(monkeypatch, body)
    head = b"POST http://a.example.org/ HTTP/1.1\r\nContent-Length: 4\r\n\r\n"
    assert world.ask(head, b"bo", b"dyGET http://evil.example/ HTTP/1.1\r\n\r\n") == b"thanks"
    assert world.server.asked.endswith(b"\r\n\r\nbody")


async def through_a_tunnel(reader, writer):
    writer.write(b"CONNECT a.example.org:443 HTTP/1.1\r\n\r\nearly ")
    established = await reader.readuntil(b"\r\n\r\n")
    writer.write(bytes(100_000))
    writer.write_eof()
    return established, await reader.read()


def test_a_tunnel_carries_all_bytes_in_both_directions(monkeypatch):
    world = World(monkeypatch, everything)
    established, answer = world.talk(through_a_tunnel)
    assert established == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert answer == b"all"
    assert world.server.asked == b"early " + bytes(100_000)
    assert world.told == [{"host": NAME, "port": 443, "sent": 100_006, "received": 3}]


@pytest.mark.parametrize(
    ("line", "host", "port"),
    [
        (b"CONNECT evil.example:443 HTTP/1.1", "evil.example", 443),
        (b"CONNECT a.example.org:22 HTTP/1.1", NAME, 22),
        (b"CONNECT xa.example.org:443 HTTP/1.1", "xa.example.org", 443),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: a.example.org", "evil.example", 80),
        (b"GET http://a.example.org:8080/ HTTP/1.1", NAME, 8080),
        (b"GET http://192.0.2.2/ HTTP/1.1", "192.0.2.2", 80),
    ],
)
def test_another_host_is_refused(world, line, host, port):
    answer = world.ask(line + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert f"{host}:{port}".encode() in answer
    assert world.tried == []
    assert world.told == [{"host": host, "port": port, "refused": "not-listed"}]


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://user@a.example.org/ HTTP/1.1",
        b"GET http://[::1]/ HTTP/1.1",
        b"CONNECT a.example.org:0 HTTP/1.1",
        b"GET / HTTP/1.1",
        b"\x16\x03\x01",
    ],
)
def test_a_malformed_request_is_refused(world, line):
    assert world.ask(line + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert (world.tried, world.told) == ([], [])


def test_a_name_that_leads_to_the_host_itself_is_refused(world):
    world.addresses = ["127.0.0.1", "::1", "169.254.169.254"]
    assert b"403" in world.ask(b"CONNECT a.example.org:443 HTTP/1.1\r\n\r\n")
    assert world.tried == []
    assert world.told[0]["refused"] == "own-address"


def test_an_address_of_the_host_itself_is_passed_over(world):
    world.addresses = ["127.0.0.2", "192.0.2.2"]
    assert b"hello" in world.ask(b"GET http://a.example.org/ HTTP/1.1\r\n\r\n")
    assert world.tried == ["192.0.2.2"]


@pytest.mark.parametrize(("addresses", "why"), [([], "no-address"), (["192.0.2.1"], "no-answer")])
def test_a_host_that_does_not_answer_is_named(world, addresses, why):
    world.addresses = addresses
    assert b"502" in world.ask(b"CONNECT a.example.org:443 HTTP/1.1\r\n\r\n")
    assert world.told == [{"host": NAME, "port": 443, "refused": why}]


def test_a_huge_head_is_refused(world):
    endless = b"GET http://a.example.org/ HTTP/1.1\r\nA: " + b"x" * (2 * HEAD_LIMIT)
    assert world.ask(endless).startswith(b"HTTP/1.1 431 ")
    assert world.tried == []


async def much(server, reader, writer):
    server.asked += await reader.readuntil(b"\r\n\r\n")
    writer.write(bytes(60_000))


async def read_slowly(reader, writer):
    writer.write(b"GET http://a.example.org/ HTTP/1.1\r\n\r\n")
    size = 0
    while data := await reader.read(500):
        size += len(data)
        await asyncio.sleep(0.001)
    return size


def test_a_slow_program_gets_the_whole_answer(monkeypatch):
    monkeypatch.setattr(proxy_module, "CLOSE_SECONDS", 0.01)
    assert World(monkeypatch, much).talk(read_slowly) == 60_000


async def drip(reader, writer):
    answer = asyncio.create_task(reader.read())
    while not answer.done():
        writer.write(b"x")
        await asyncio.sleep(POLL_SECONDS)
    return answer.result()


def test_a_head_that_drips_in_is_not_waited_for(monkeypatch):
    world = World(monkeypatch, patience=MOMENT)
    assert world.talk(drip).startswith(b"HTTP/1.1 408 ")


def test_a_program_that_leaves_is_forgotten(world):
    async def talk(reader, writer):
        writer.write(b"GET http://a")

    world.talk(talk)
    assert world.told == []


@pytest.mark.parametrize("line", [b"GET http://a.example.org/", b"CONNECT a.example.org:443"])
def test_a_silent_server_ends_the_connection(monkeypatch, line):
    world = World(monkeypatch, silence, MOMENT)
    world.ask(line + b" HTTP/1.1\r\n\r\n")
    assert world.told[0]["host"] == NAME


def test_too_many_connections_are_refused(world):
    world.proxy._open = CONNECTIONS
    assert world.ask(b"").startswith(b"HTTP/1.1 503 ")
    assert world.proxy._open == CONNECTIONS

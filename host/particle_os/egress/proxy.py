"""The HTTP proxy of a stage, as a program: it reaches the hosts that the stage's recipe names.

Standard input is a Unix socket that brings the connections, as descriptors with one byte each; the
program ends when that socket does. The arguments are the hosts (`NetworkHost`). The program prints
each host that it has reached or refused, as a JSON object a line. It checks every request, and
serves one request a connection.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from particle_agent.contract.hosts import HostPattern

from particle_os.egress.addresses import permitted, resolve
from particle_os.egress.request import HEAD_LIMIT, BadRequest, Request, parse

CONNECTIONS = 64
CHUNK = 1 << 16
CLOSE_SECONDS = 2.0
TEMPLATE = "HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True)
class Patience:
    """The seconds for the head of a request, for a connection to a server, and without a byte."""

    head: float = 30.0
    connect: float = 30.0
    idle: float = 300.0


class Refusal(Exception):
    """The proxy does not serve the request: the status for the program, and the reason."""

    def __init__(self, status: int, why: str, code: str) -> None:
        super().__init__(why)
        self.status = status
        self.code = code


@dataclass
class Client:
    """A connection of a program of the stage, and the bytes of its request and answer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent: int = 0
    received: int = 0


class Proxy:
    """Serves connections; `note` gets a record of each request for a host."""

    def __init__(
        self,
        hosts: tuple[str, ...],
        note: Callable[[dict[str, object]], None],
        patience: Patience = Patience(),
    ) -> None:
        self._places = tuple(HostPattern.written(host) for host in hosts)
        self._note = note
        self._patience = patience
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection, and closes it."""
        self._open += 1
        try:
            if self._open > CONNECTIONS:
                raise Refusal(503, "too many connections at once", "busy")
            await self._answer(Client(reader, writer))
        except Refusal as refusal:
            await _refuse(reader, writer, refusal)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open -= 1
            await _close(writer)

    async def _answer(self, client: Client) -> None:
        request = await self._request(client.reader)
        about: dict[str, object] = {"host": request.host, "port": request.port}
        try:
            reader, writer = await self._reach(request)
        except Refusal as refusal:
            self._note({**about, "refused": refusal.code})
            raise
        try:
            await self._exchange(request, client, reader, writer)
        finally:
            self._note({**about, "sent": client.sent, "received": client.received})
            await _close(writer)

    async def _request(self, reader: asyncio.StreamReader) -> Request:
        try:
            async with asyncio.timeout(self._patience.head):
                return parse(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.LimitOverrunError:
            raise Refusal(431, f"the head is longer than {HEAD_LIMIT} bytes", "head") from None
        except TimeoutError:
            raise Refusal(408, "the head of the request is late", "late") from None
        except BadRequest as error:
            raise Refusal(400, str(error), "malformed") from None

    async def _reach(self, request: Request) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects to the server of a request. Raises Refusal."""
        host, port = request.host, request.port
        if not any(place.has(host, port) for place in self._places):
            raise Refusal(403, f"the stage's 'network' does not list {host}:{port}", "not-listed")
        try:
            async with asyncio.timeout(self._patience.connect):
                found = await asyncio.to_thread(resolve, host, port)
                addresses = list(permitted(found, host, self._places))
                if not addresses:
                    raise Refusal(403, f"{host} leads to the host itself", "own-address")
                return await _connect(addresses, port)
        except (OSError, UnicodeError) as error:
            code = (
                "no-address" if isinstance(error, socket.gaierror | UnicodeError) else "no-answer"
            )
            raise Refusal(502, f"{host}:{port} cannot be reached", code) from error

    async def _exchange(
        self,
        request: Request,
        client: Client,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Passes the request and its answer on, or all bytes of a tunnel, until the server ends."""
        if request.tunnel:
            client.writer.write(ESTABLISHED)
        else:
            writer.write(request.head)
            client.sent += len(request.head)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._patience.idle) as idle:

            def sent(count: int) -> None:
                client.sent += count
                idle.reschedule(loop.time() + self._patience.idle)

            def received(count: int) -> None:
                client.received += count
                idle.reschedule(loop.time() + self._patience.idle)

            # A second request on the connection would pass unchecked, so it is not read.
            length = None if request.tunnel else request.body
            upward = loop.create_task(_copy(client.reader, writer, sent, length))
            downward = loop.create_task(_copy(reader, client.writer, received))
            both = {upward, downward}
            try:
                waited = both if request.tunnel else {downward}
                await asyncio.wait(waited, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)


async def _copy(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    count: Callable[[int], None],
    length: int | None = None,
) -> None:
    """Copies `length` bytes, or all; `count` gets the number of bytes of each piece."""
    # Let `drain` wait until the kernel has all bytes: `_close` does not wait for a slow reader.
    writer.transport.set_write_buffer_limits(high=0)
    left = CHUNK if length is None else length
    while data := await reader.read(min(CHUNK, left)):
        writer.write(data)
        await writer.drain()
        count(len(data))
        left -= 0 if length is None else len(data)
    if length is None:
        writer.write_eof()


async def _connect(
    addresses: list[str], port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to the first address that answers. Raises OSError."""
    problem: OSError | None = None
    for address in addresses:
        try:
            return await asyncio.open_connection(address, port)
        except OSError as error:
            problem = error
    raise problem or OSError("there is no address")


async def _refuse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refusal: Refusal
) -> None:
    """Answers a request that the proxy does not serve."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            writer.write(TEMPLATE.format(refusal.status, refusal).encode("latin-1", "replace"))
            writer.write_eof()
            # A close before the program has ended its request could destroy the answer.
            while await reader.read(CHUNK):
                pass
    except (OSError, TimeoutError):
        pass


async def _close(writer: asyncio.StreamWriter) -> None:
    """Closes a connection; its last bytes may take some seconds."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


def _print(record: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


async def _serve(hosts: tuple[str, ...], source: socket.socket) -> None:
    """Serves the connections from `source` until its end, and prints the records of all."""
    proxy, ended = Proxy(hosts, _print), asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(connection: socket.socket) -> None:
        await proxy.serve(*await asyncio.open_unix_connection(sock=connection, limit=HEAD_LIMIT))

    def take() -> None:
        data, descriptors, _, _ = socket.recv_fds(source, 1, 1)
        for descriptor in descriptors:
            task = asyncio.create_task(accept(socket.socket(fileno=descriptor)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if not data:
            ended.set()

    asyncio.get_running_loop().add_reader(source, take)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(source)
    if still_open := list(tasks):
        for task in still_open:
            task.cancel()
        await asyncio.wait(still_open, timeout=CLOSE_SECONDS)
    # A thread that still waits for a name would delay the end of the program.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_serve(tuple(sys.argv[1:]), socket.socket(fileno=0)))

"""The host's side of the guest agent: packs the agent, runs it, and handles its events."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from particle_agent.contract import wire
from particle_agent.contract.decode import DecodeError, decode, encode
from particle_agent.contract.hosts import PROXY_PORT
from particle_agent.contract.inspection import CommitFacts, Inspection
from particle_agent.stages import Stage

from particle_os.egress.gateway import Gateway, gateway
from particle_os.egress.record import Hosts
from particle_os.errors import (
    DeadlineExceeded,
    InfrastructureError,
    ParticleError,
    StageFailed,
    VmError,
    printable,
)
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate

if TYPE_CHECKING:
    import paramiko

    from particle_os.vm.ssh import Connection

# guest/initrd.sh puts the packed agent there.
PLACE = "/particle-os/{name}.pyz"
# The agent sends a heartbeat every few seconds, so this much silence means that it is dead.
SILENCE_SECONDS = 60.0
PROXY_SECONDS = 60.0
T = TypeVar("T")
MAIN = "import sys\nfrom particle_agent.__main__ import main\nsys.exit(main())\n"
# If an agent with the same modules already waits for orders in the VM (shortcuts/waiting.py,
# guest/init.sh), it forks a process for the verb. This saves two seconds under emulation.
CALL = """\
orders=/run/particle-os/{name} status=/run/particle-os/status-$$
[ -p $orders ] || exec python3 -I -S {place} {verb}
busybox mkfifo $status && echo "$$ $status {place} {verb}" >$orders
code=$(busybox cat $status)
exit ${{code:-1}}
"""
# Handles an event; returns the host's answer if the agent waits for one.
Listener = Callable[[wire.AgentEvent], wire.HostAnswer | None]


def _modules(directory: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(directory.iterdir(), key=lambda e: e.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _modules(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield f"{prefix}{entry.name}", entry.read_bytes()


@dataclass(frozen=True)
class Program:
    """The agent as a zipapp (PEP 441); `name` is derived from the content of its modules."""

    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        """The SHA-256 of the packed agent, which includes all stages."""
        return hashlib.sha256(self.data).hexdigest()


def pack() -> Program:
    """Packs the agent of this installation; equal sources give equal bytes."""
    modules = list(_modules(resources.files("particle_agent"), "particle_agent/"))
    name = f"agent-{hashlib.sha256(repr(modules).encode()).hexdigest()[:32]}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, data in [("__main__.py", MAIN.encode()), *modules]:
            archive.writestr(zipfile.ZipInfo(path), data)
    return Program(name, buffer.getvalue())


class Agent:
    """The agent in a running VM; `death` returns the reason if the VM has died."""

    def __init__(
        self,
        connection: Connection,
        death: Callable[[], ParticleError | None],
        program: Program,
        gate: Gate,
    ) -> None:
        self._connection = connection
        self._death = death
        self._program = program
        self._place = PLACE.format(name=program.name)
        self._gate = gate
        self._gateway: Gateway | None = None
        self._way_out = ExitStack()

    def attach(self, name: str, data: IO[bytes], deadline: Deadline) -> str:
        """Copies a file that stages read as `name` (`Target.attached`); returns its SHA-256."""
        return self._put(f"{wire.ATTACHED}/{name}", data, deadline)

    def hold(self, values: Mapping[str, bytes], deadline: Deadline) -> None:
        """Sends secrets, by keyed hash. The gate hides them from now on, if it did not before."""
        self._gate.learn(values.values())
        for name, value in values.items():
            self._put(f"{wire.HELD}/{name}", io.BytesIO(value), deadline)

    def _put(self, path: str, data: IO[bytes], deadline: Deadline) -> str:
        """Writes a file into the VM's memory; returns the SHA-256, on which both ends agree."""
        command = f"mkdir -p {path.rpartition('/')[0]} && cat > {path} && sha256sum {path}"
        with self._connection.command(command, deadline) as channel:
            sent = self._connection.send(channel, data, deadline)
            answer = receive(channel, 200, deadline).decode("ascii", "replace")
        if answer.split(" ")[0] != sent:
            raise VmError(f"{path} did not arrive whole: {printable(answer, 100)}")
        return sent

    def unpack(
        self,
        stream: BinaryIO,
        deadline: Deadline,
        listen: Listener,
        *,
        verb: Literal["unpack", "unpack-image"] = "unpack",
    ) -> str:
        """Streams a base to the agent, which unpacks it; returns the SHA-256 of the sent bytes.

        Raises InfrastructureError when the agent has received other bytes.
        """
        received: list[wire.Unpacked] = []

        def note(event: wire.AgentEvent) -> wire.HostAnswer | None:
            if isinstance(event, wire.Unpacked):
                received.append(event)
                return None
            return listen(event)

        with self._channel(verb, deadline) as channel:
            try:
                sent = self._connection.send(channel, stream, deadline)
            except VmError as error:
                # The agent's own error explains more than a closed pipe.
                self._listen(channel, deadline, note)
                raise self._death() or error from error
            self._listen(channel, deadline, note)
        if not received or received[0].sha256 != sent:
            raise InfrastructureError("the base did not arrive whole in the VM")
        return sent

    def take_commit(self, commit: wire.BaseCommit, deadline: Deadline, listen: Listener) -> None:
        """Makes the commit on the disk `wire.INPUT_DISK` the base."""
        with self._channel("take-commit", deadline) as channel:
            self._say(channel, encode(commit), deadline)
            self._listen(channel, deadline, listen)

    def extract(self, sources: str, deadline: Deadline, listen: Listener) -> None:
        """Extracts the packages of the packages disk; `sources` becomes sources.list(5)."""
        with self._channel("extract", deadline) as channel:
            self._connection.send(channel, io.BytesIO(sources.encode()), deadline)
            self._listen(channel, deadline, listen)

    def run(
        self,
        stages: Sequence[Stage],
        *,
        hostname: str,
        deadline: Deadline,
        listen: Listener,
        source_date: int | None = None,
        plain: bool = False,
        apt_proxy: wire.AptProxy | None = None,
        checkpoints: bool = False,
        verify: bool = False,
        architecture: str,
    ) -> None:
        """Runs the stages, and passes each event to `listen`. Returns when the agent is done.

        With `checkpoints` the agent waits after each stage except the last (`Frozen`). With
        `verify` the agent verifies the disk that the last stage has written. Raises StageFailed or
        InfrastructureError when the agent reports a failure, and VmError or DeadlineExceeded when
        it ends or stays silent.
        """
        options = wire.RunOptions(
            hostname=hostname,
            source_date=source_date,
            plain=plain,
            apt_proxy=apt_proxy,
            checkpoints=checkpoints,
            verify=verify,
            architecture=architecture,
        )
        request = {"options": encode(options), "stages": [encode(stage) for stage in stages]}
        with self._channel("run", deadline) as channel:
            self._say(channel, request, deadline)
            self._listen(channel, deadline, listen)

    @contextmanager
    def shell(
        self, deadline: Deadline, options: wire.ShellOptions, *, terminal: bool
    ) -> Iterator[paramiko.Channel]:
        """The channel of a root shell in the target; `terminal` gives it a pseudo-terminal."""
        given = shlex.quote(json.dumps(encode(options)))
        command = f"exec python3 -I -S {self._place} shell {given}"
        with self._connection.command(command, deadline, terminal=terminal) as channel:
            yield channel

    def allow_hosts(self, hosts: Sequence[str], deadline: Deadline) -> None:
        """Lets the VM reach these hosts through a proxy, and no others, until `forbid_hosts`."""
        self.forbid_hosts()
        opening = deadline.sooner(PROXY_SECONDS, "opening the VM's way to the proxy")
        with ExitStack() as stack:
            opened = stack.enter_context(gateway(hosts))
            stack.enter_context(self._connection.forwarded(PROXY_PORT, opened.take, opening))
            self._gateway, self._way_out = opened, stack.pop_all()

    def forbid_hosts(self) -> Hosts | None:
        """Ends the proxy. Returns the hosts that the VM has asked for; None if there was none."""
        opened, self._gateway = self._gateway, None
        self._way_out.close()
        return opened.hosts if opened is not None else None

    def quiesce(self, deadline: Deadline) -> None:
        """Makes the VM write its cached data to its disks."""
        with self._connection.command("sync", deadline) as channel:
            receive(channel, 1, deadline)

    def _say(self, channel: paramiko.Channel, message: object, deadline: Deadline) -> None:
        line = json.dumps(message).encode() + b"\n"
        self._connection.send(channel, io.BytesIO(line), deadline, more_follows=True)

    def packages_request(self, deadline: Deadline) -> wire.PackageRequest:
        """The request that the agent has announced with `PackagesNeeded`."""
        path, limit = wire.PACKAGES_REQUEST, wire.PACKAGES_REQUEST_LIMIT
        return self._fetch(path, limit, wire.PackageRequest, deadline)

    def inspect(
        self, what: Literal["disk", "target"], deadline: Deadline, listen: Listener
    ) -> Inspection:
        """Inspects the attached disk, or the target."""
        with self._channel(f"inspect-{what}", deadline) as channel:
            self._listen(channel, deadline, listen)
        return self.found(deadline)

    def found(self, deadline: Deadline) -> Inspection:
        """The inspection that the agent has written, of the target or of the attached disk."""
        found = self._fetch(wire.INSPECTION, wire.INSPECTION_LIMIT, Inspection, deadline)
        return self._gate.hide(found)

    def commit_facts(self, deadline: Deadline) -> CommitFacts:
        """The facts about the commit that the agent has published."""
        path, limit = wire.COMMIT_FACTS, wire.COMMIT_FACTS_LIMIT
        return self._gate.hide(self._fetch(path, limit, CommitFacts, deadline))

    def verify(self, deadline: Deadline, listen: Listener) -> None:
        """Verifies the attached disk, and passes each finding to `listen`."""
        with self._channel("verify-disk", deadline) as channel:
            self._listen(channel, deadline, listen)

    def _fetch(self, path: str, limit: int, kind: type[T], deadline: Deadline) -> T:
        """Reads a JSON file of the VM as the dataclass `kind`; `limit` is in bytes."""
        with self._connection.command(f"cat {path}", deadline) as channel:
            try:
                text = receive(channel, limit, deadline)
                return decode(kind, json.loads(text))
            except (OSError, ValueError, RecursionError) as error:
                why = printable(str(error), 200)
                raise self._death() or VmError(
                    f"the agent's file {path} cannot be read: {why}"
                ) from error

    def _channel(self, verb: str, deadline: Deadline) -> Any:
        call = CALL.format(name=self._program.name, place=self._place, verb=verb)
        return self._connection.command(call, deadline)

    def _listen(self, channel: paramiko.Channel, deadline: Deadline, listen: Listener) -> None:
        complaints = bytearray()
        introduced = False
        for line in self._lines(channel, deadline, complaints):
            try:
                event = self._shown(wire.from_line(line))
            except DecodeError as error:
                raise VmError(f"the agent sent an invalid line: {printable(str(error))}") from error
            if not introduced and not isinstance(event, wire.Hello):
                raise VmError("the agent did not introduce itself")
            match event:
                case wire.Done():
                    return
                case wire.Failed():
                    raise _failure(event)
                case wire.Hello():
                    if (event.protocol, event.agent_sha256) != (
                        wire.PROTOCOL,
                        self._program.sha256,
                    ):
                        raise VmError("the agent that answers is not the agent of this version")
                    introduced = True
                case wire.Heartbeat():
                    pass
                case _:
                    if (answer := listen(event)) is not None:
                        self._say(channel, encode(answer), deadline)
        lines = complaints.decode("utf-8", "replace").splitlines()
        tail = [printable(line) for line in self._gate.lines(lines)]
        raise self._death() or VmError("the agent ended without saying 'done'", tail=tail[-15:])

    def _shown(self, event: wire.AgentEvent) -> wire.AgentEvent:
        """An event without secrets. Lines of output pass the gate together, in `Progress`."""
        return event if isinstance(event, wire.OutputLine) else self._gate.hide(event)

    def _lines(
        self, channel: paramiko.Channel, deadline: Deadline, complaints: bytearray
    ) -> Iterator[bytes]:
        """The lines of the agent's standard output; `complaints` gets the last 64 KiB of stderr."""
        buffer = b""
        while True:
            while channel.recv_stderr_ready():
                complaints += channel.recv_stderr(65536)
                del complaints[:-65536]
            silence = deadline.sooner(SILENCE_SECONDS, "a sign of life of the agent")
            try:
                channel.settimeout(silence.remaining())
                data = channel.recv(65536)
            except TimeoutError:
                deadline.remaining()
                raise self._death() or DeadlineExceeded(
                    f"the agent has been silent for {SILENCE_SECONDS:.0f} s"
                ) from None
            except OSError as error:
                raise self._death() or VmError(
                    f"the connection to the VM broke: {error}"
                ) from error
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            yield from lines
            if len(buffer) > wire.LINE_LIMIT:
                raise VmError(f"the agent sent a line of more than {wire.LINE_LIMIT} bytes")


def _failure(event: wire.Failed) -> ParticleError:
    """The agent's report as an error; the caller adds the place in the recipe."""
    kind = StageFailed if event.kind == "stage" else InfrastructureError
    message = printable(event.message)
    if event.kind == "internal":
        message = f"the agent failed: {message}"
    hint = printable(event.hint) if event.hint else None
    return kind(message, hint=hint, tail=[printable(line) for line in event.tail])


def receive(channel: paramiko.Channel, limit: int, deadline: Deadline) -> bytes:
    """At most `limit` bytes of a command's output, until its end.

    The deadline holds for all of it, however slowly it comes. Raises OSError.
    """
    data = bytearray()
    while len(data) < limit:
        channel.settimeout(deadline.remaining())
        if not (part := channel.recv(limit - len(data))):
            break
        data += part
    return bytes(data)

"""The packed agent as a real program, and agents that send wrong messages."""

import hashlib
import io
import json
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from typing import ClassVar

import pytest
from particle_agent.contract import wire
from particle_agent.contract.decode import decode
from particle_os.errors import (
    DeadlineExceeded,
    InfrastructureError,
    ParticleError,
    StageFailed,
    VmError,
)
from particle_os.sandbox.agent import Agent, pack, receive
from particle_os.system.gate import Gate

from ...waiting import HANG_SECONDS, Clock, DeadlineWhen, plenty

PROGRAM = pack()
SHA256 = PROGRAM.sha256


def line(event):
    return wire.to_line(event).encode()


HELLO = line(wire.Hello(protocol=wire.PROTOCOL, agent_sha256=SHA256))
DONE = line(wire.Done())


class Channel:
    """Delivers `pieces` and then ends; a clock among them means silence, and advances."""

    def __init__(self, pieces):
        self._pieces = list(pieces)
        self._timeout = None

    def settimeout(self, seconds):
        self._timeout = seconds

    def recv(self, size):
        if not self._pieces:
            return b""
        if isinstance(self._pieces[0], Clock):
            self._pieces[0].sleep(self._timeout)
            raise TimeoutError
        piece = self._pieces.pop(0)
        if len(piece) > size:
            self._pieces.insert(0, piece[size:])
        return piece[:size]

    def recv_stderr_ready(self):
        return False


class Connection:
    def __init__(self, *pieces):
        self._pieces = pieces

    @contextmanager
    def command(self, argv, deadline):
        first = next(iter(self._pieces), b"")
        yield first if isinstance(first, Channel) else Channel(self._pieces)

    def send(self, channel, stream, deadline, more_follows=False):
        return hashlib.sha256(stream.read()).hexdigest()


def run(*pieces, death=None, deadline=None):
    """Runs no stage with an agent that sends `pieces`; returns the events."""
    events = []
    Agent(Connection(*pieces), lambda: death, PROGRAM, Gate()).run(
        [],
        hostname="x",
        deadline=deadline or plenty(),
        listen=events.append,
        architecture="amd64",
    )
    return events


def test_the_same_sources_pack_to_the_same_bytes(monkeypatch):
    first = pack().data
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert pack().data == first
    names = zipfile.ZipFile(io.BytesIO(first)).namelist()
    assert names[0] == "__main__.py"
    assert not [name for name in names if "pycache" in name or not name.endswith(".py")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_text",
    ["no json", json.dumps({"options": {"hostname": "x"}, "stages": [{"type": "no-stage"}]})],
)
def test_the_packed_agent_runs_without_any_library(tmp_path, request_text):
    place = tmp_path / "agent.pyz"
    place.write_bytes(PROGRAM.data)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(place), "run"],
        input=request_text.encode(),
        capture_output=True,
        timeout=HANG_SECONDS,
        cwd=tmp_path,
    )
    events = [wire.from_line(text) for text in done.stdout.splitlines()]
    assert events[0] == wire.Hello(protocol=wire.PROTOCOL, agent_sha256=SHA256)
    assert isinstance(events[-1], wire.Failed)
    assert events[-1].kind == "internal"
    assert done.returncode != 0


def test_what_the_agent_tells_is_handed_on():
    events = [wire.StageStart(index=0), wire.OutputLine(text="x"), wire.Notice(text="y")]
    heartbeat = line(wire.Heartbeat())
    stream = HELLO + heartbeat.join(map(line, events)) + DONE
    assert run(stream) == events
    assert run(*(stream[i : i + 1] for i in range(len(stream)))) == events


@pytest.mark.parametrize("plain", [False, True])
def test_the_agent_gets_the_options_of_the_run(plain):
    class Sent(Connection):
        def send(self, channel, stream, deadline, more_follows=False):
            requests.append(json.loads(stream.read()))

    requests = []
    agent = Agent(Sent(HELLO + DONE), lambda: None, PROGRAM, Gate())
    more = {"verify": not plain, "checkpoints": plain, "source_date": 7}
    more["architecture"] = "arm64"
    agent.run([], hostname="x", deadline=plenty(), listen=print, plain=plain, **more)
    (request,) = requests
    wanted = wire.RunOptions(hostname="x", plain=plain, **more)
    assert decode(wire.RunOptions, request["options"]) == wanted


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([line(wire.Hello(protocol=1, agent_sha256="0" * 64)), DONE], "not the agent of this"),
        ([line(wire.Hello(protocol=99, agent_sha256=SHA256)), DONE], "not the agent of this"),
        ([DONE], "agent"),
        ([HELLO, b"garbage\n", DONE], "an invalid line"),
        ([HELLO, b'{"type": "done", "extra": 1}\n'], "an invalid line"),
        ([HELLO, b'{"type": "no-such-event"}\n', DONE], "an invalid line"),
        ([HELLO, b"[" * 50_000 + b"\n", DONE], "an invalid line"),
        ([HELLO, b"\xff\xfe\n", DONE], "an invalid line"),
        ([HELLO, b"x" * 1_000_000, DONE], "a line of more than|an invalid line"),
        ([HELLO, line(wire.StageStart(index=0))], "without saying 'done'"),
        ([HELLO, DONE.rstrip()], "without saying 'done'"),
        ([], "without saying 'done'"),
    ],
    ids=["wrong-hash", "wrong-protocol", "no-hello", "garbage", "extra-key", "unknown-event",
         "deep", "no-text", "endless-line", "early-end", "cut-done", "nothing"],
)  # fmt: skip
def test_a_lying_agent_is_not_believed(pieces, message):
    with pytest.raises(VmError, match=message):
        run(*pieces)


def test_complaints_of_the_agent_that_are_no_text_are_shown():
    class Complaining(Channel):
        complaints: ClassVar = [b"Traceback \xff\x1b[31m"]

        def recv_stderr_ready(self):
            return bool(self.complaints)

        def recv_stderr(self, size):
            return self.complaints.pop()

    with pytest.raises(VmError, match="without saying 'done'") as failed:
        run(Complaining([HELLO]))
    assert failed.value.tail == ("Traceback \ufffd\\x1b[31m",)


def test_an_endless_line_is_given_up_early():
    read = []

    class Endless(Channel):
        def recv(self, size):
            read.append(size)
            return b"x" * size

    with pytest.raises(VmError):
        run(Endless([]))
    assert len(read) < 10


def test_silence_is_given_up(clock):
    begun = clock.now
    with pytest.raises(DeadlineExceeded, match="silent for 60 s"):
        run(HELLO, clock, deadline=clock.deadline(3600))
    assert clock.now == begun + 60


def test_silence_past_the_deadline_is_given_up(clock):
    with pytest.raises(DeadlineExceeded, match="the stages took longer"):
        run(HELLO, clock, deadline=clock.deadline(20, "the stages"))


def test_heartbeats_do_not_move_the_deadline(clock):
    class Beating(Channel):
        greeted = False

        def recv(self, size):
            clock.sleep(5)
            message = line(wire.Heartbeat()) if self.greeted else HELLO
            self.greeted = True
            return message

    with pytest.raises(DeadlineExceeded):
        run(Beating([]), deadline=clock.deadline(3600, "the stages"))


@pytest.mark.parametrize("silent", [False, True])
def test_the_death_of_the_vm_explains_the_end(clock, silent):
    pieces, deadline = [HELLO, clock] if silent else [HELLO], clock.deadline(3600)
    with pytest.raises(VmError, match="kernel panic"):
        run(*pieces, death=VmError("kernel panic"), deadline=deadline)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("stage", StageFailed),
        ("infrastructure", InfrastructureError),
        ("internal", InfrastructureError),
    ],
)
def test_a_failure_is_reported_with_its_hint_and_tail_escaped(kind, error):
    event = wire.Failed(
        kind=kind, index=1, message="no\x1b[2Jlocale", hint="add\nit", tail=("E: \x07bell",)
    )
    with pytest.raises(ParticleError) as raised:
        run(HELLO, line(event))
    assert type(raised.value) is error
    assert raised.value.brief.endswith("no\\x1b[2Jlocale")
    assert raised.value.hint == "add\\nit"
    assert raised.value.tail == ("E: \\x07bell",)


def test_a_file_must_arrive_whole(soon):
    data = b"a file"
    sha256 = hashlib.sha256(data).hexdigest()
    agent = Agent(Connection(f"{sha256}  /x\n".encode()), lambda: None, PROGRAM, Gate())
    assert agent.attach("name", io.BytesIO(data), soon) == sha256
    for answer in (b"", b"0" * 64 + b"  /x\n", b"sh: \xff not found"):
        agent = Agent(Connection(answer), lambda: None, PROGRAM, Gate())
        with pytest.raises(VmError, match="did not arrive whole"):
            agent.attach("name", io.BytesIO(data), soon)


def test_the_base_must_arrive_whole(soon):
    data = b"a tarball"
    sha256 = hashlib.sha256(data).hexdigest()

    def unpack(*events):
        pieces = [HELLO, *map(line, events), DONE]
        return Agent(Connection(*pieces), lambda: None, PROGRAM, Gate()).unpack(
            io.BytesIO(data), soon, print
        )

    assert unpack(wire.Unpacked(size=9, sha256=sha256)) == sha256
    for events in ([], [wire.Unpacked(size=9, sha256="0" * 64)]):
        with pytest.raises(InfrastructureError, match="did not arrive whole"):
            unpack(*events)


class Dripping:
    """A channel whose peer sends one byte at a time, without end."""

    def __init__(self):
        self.received = 0

    def settimeout(self, seconds):
        pass

    def recv(self, size):
        self.received += 1
        assert self.received < 1000, "the deadline is ignored"
        return b"x"


def test_a_reply_that_comes_byte_by_byte_ends_at_the_deadline_or_the_limit():
    channel = Dripping()
    assert receive(channel, 5, DeadlineWhen()) == b"xxxxx"
    with pytest.raises(DeadlineExceeded):
        receive(channel, 1 << 20, DeadlineWhen(passed=lambda: channel.received > 20))

import json
import os
import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.errors import (
    DeadlineExceeded,
    InfrastructureError,
    NotEnoughSpace,
    StageFailed,
    VmError,
)
from particle_os.vm.argv import Disk
from particle_os.vm.monitor import Monitor

from ...waiting import HANG_SECONDS, DeadlineWhen, moment

GREETING = {"QMP": {"version": {}, "capabilities": []}}
OK = {"return": {}}
OUTPUT = Disk(Path("output.raw"), "raw", "output")
USERNET = """\
Hub -1 (net0):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[HOST_FORWARD]  13       127.0.0.1 40123       10.0.2.15    22     0     0
"""


@pytest.fixture
def deep(tmp_path):
    """A directory whose path is longer than a Unix socket's name may be."""
    path = tmp_path.joinpath(*["a-very-long-directory-name"] * 8)
    path.mkdir(parents=True)
    assert len(str(path)) > 200
    return path


@contextmanager
def qmp_server(directory, *answers, after=None):
    """Sends the greeting, then the next of `answers` (messages or bytes) for each request.

    The socket appears `after` an event.
    """
    requests = []
    ended = threading.Event()
    descriptor = os.open(directory, os.O_PATH)

    def serve():
        if after is not None:
            after.wait(HANG_SECONDS)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{descriptor}/qmp.sock")
            listener.listen()
            connection, _ = listener.accept()
            with suppress(ConnectionError), connection, connection.makefile("rb") as lines:
                connection.sendall(json.dumps(GREETING).encode() + b"\n")
                for answer in (OK, *answers):
                    requests.append(json.loads(lines.readline() or b"null"))
                    for message in answer if isinstance(answer, list) else [answer]:
                        data = message if isinstance(message, bytes) else json.dumps(message)
                        data = data if isinstance(data, bytes) else data.encode() + b"\n"
                        connection.sendall(data)
                if answers[-1:] == (b"",):
                    ended.wait(HANG_SECONDS)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield requests
    finally:
        ended.set()
        thread.join(HANG_SECONDS)
        os.close(descriptor)


def connect(directory, deadline, alive=lambda: True):
    return Monitor(directory, "qmp.sock", deadline, alive)


def test_the_cable_is_taken_out_and_put_back_from_the_outside(deep, soon):
    with qmp_server(deep, OK, OK) as requests, connect(deep, soon) as monitor:
        monitor.connect_outside(False, soon)
        monitor.connect_outside(True, soon)
    sent = [r["arguments"] for r in requests if r["execute"] == "set_link"]
    assert sent == [{"name": "outside", "up": False}, {"name": "outside", "up": True}]


def test_commands_and_values_in_a_very_deep_directory(deep, soon):
    with qmp_server(deep, {"return": USERNET}, OK) as requests, connect(deep, soon) as monitor:
        assert monitor.forwarded_port(soon) == 40123
        monitor.resize(OUTPUT, 1 << 30, soon)
    assert [r["execute"] for r in requests] == [
        "qmp_capabilities",
        "human-monitor-command",
        "block_resize",
    ]
    assert requests[2]["arguments"] == {"node-name": "disk-output", "size": 1 << 30}


def test_a_socket_that_appears_late_is_waited_for(deep, soon):
    tried = threading.Event()
    with qmp_server(deep, after=tried), connect(deep, soon, alive=lambda: not tried.set()):
        assert tried.is_set()


def test_events_are_passed_over(deep, soon):
    events = [{"event": "RESUME"}, {"event": "NIC_RX_FILTER_CHANGED"}, {"return": 5}]
    with qmp_server(deep, events), connect(deep, soon) as monitor:
        assert monitor.execute("query", soon) == 5


def io_error(**data):
    about = {"device": "", "node-name": "disk-scratch", "operation": "write", "action": "report"}
    return {"event": "BLOCK_IO_ERROR", "data": {**about, **data}}


@pytest.mark.parametrize(
    ("event", "message", "hint"),
    [
        (
            io_error(nospace=True, reason="No space left on device"),
            "the host cannot write to the VM's disk 'scratch': No space left on device",
            "full",
        ),
        (
            io_error(operation="read", reason="Input/output\x1b error"),
            "the host cannot read the VM's disk 'scratch': Input/output\\x1b error",
            "has failed",
        ),
        ({"event": "BLOCK_IO_ERROR"}, "the host cannot read the VM's disk '': input", "has failed"),
    ],
)
def test_a_disk_of_the_host_that_fails_is_named(deep, soon, event, message, hint):
    other = {"event": "RESET", "data": {"guest": True}}
    with qmp_server(deep, [other, event, OK], [OK], after=None), connect(deep, soon) as monitor:
        error = monitor.disk_error()
        assert message in error.brief
        assert hint in error.hint
        assert isinstance(error, NotEnoughSpace) == (hint == "full")


def test_a_disk_error_before_the_end_of_qemu_is_known(deep, soon):
    with qmp_server(deep, [io_error(reason="x"), OK]), connect(deep, soon) as monitor:
        monitor.execute("query-status", soon)
        assert "disk 'scratch': x" in monitor.disk_error().brief


def test_a_refusal_is_told_in_qemus_words(deep, soon):
    refusal = {"error": {"class": "GenericError", "desc": "Cannot grow device"}}
    with qmp_server(deep, refusal), connect(deep, soon) as monitor:
        with pytest.raises(VmError, match="block_resize: Cannot grow device"):
            monitor.resize(OUTPUT, 1, soon)


@pytest.mark.parametrize("answer", [b"garbage\n", b"[1, 2]\n", b"{", b"\xff\xfe\n"])
def test_an_answer_that_is_none_is_told(deep, soon, answer):
    with qmp_server(deep, answer), connect(deep, soon) as monitor:
        with pytest.raises(VmError):
            monitor.execute("query", soon)


def test_a_closed_connection_is_told(deep, soon):
    with qmp_server(deep), connect(deep, soon) as monitor:
        with pytest.raises(VmError):
            monitor.execute("query", soon)


def test_silence_ends_at_the_deadline(deep, soon):
    with qmp_server(deep, b""), connect(deep, soon) as monitor:
        with pytest.raises(InfrastructureError, match=r"timed out|took longer"):
            monitor.execute("query", moment())


def test_a_reply_that_comes_byte_by_byte_ends_at_the_deadline(deep, soon):
    """The deadline passes while the reply arrives; the wait for its next byte never ends it."""
    sent = []

    def drip():
        for _ in range(1000):
            sent.append(b" ")
            yield b" "

    class Drip(list):
        def __iter__(self):
            return drip()

    late = DeadlineWhen(passed=lambda: len(sent) > 20)
    with qmp_server(deep, Drip()), connect(deep, soon) as monitor:
        with pytest.raises(DeadlineExceeded):
            monitor.execute("query", late)


def test_no_port_is_an_error(deep, soon):
    with qmp_server(deep, {"return": "Hub -1"}), connect(deep, soon) as monitor:
        with pytest.raises(VmError, match="forwards no port"):
            monitor.forwarded_port(soon)


def test_a_dead_qemu_is_not_waited_for(deep, soon):
    looks = []
    with pytest.raises(VmError, match=r"qmp\.sock"):
        connect(deep, soon, alive=lambda: looks.append(1))
    assert len(looks) == 1


def test_a_socket_that_never_appears_ends_at_the_deadline(deep):
    with pytest.raises(InfrastructureError):
        connect(deep, moment())


class Disks:
    """A monitor that knows of `error`."""

    blaming_disks = Monitor.blaming_disks

    def __init__(self, error=None):
        self.error = error

    def disk_error(self):
        return self.error


def test_a_disk_that_failed_is_the_cause_of_whatever_the_guest_reports():
    found = InfrastructureError("the host cannot write to the VM's disk 'scratch'", hint="do this")
    said = StageFailed("the agent failed: OSError", where="recipe.yml:3", tail=["one", "two"])
    with pytest.raises(InfrastructureError) as raised, Disks(found).blaming_disks():
        raise said
    assert raised.value is found
    assert found.where == "recipe.yml:3"
    assert found.tail == ("the agent failed: OSError",)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (None, StageFailed("it failed")),
        (InfrastructureError("a disk"), NotEnoughSpace("the disk of the host is full")),
    ],
)
def test_another_error_stays_as_it_is(known, said):
    with pytest.raises(type(said)) as raised, Disks(known).blaming_disks():
        raise said
    assert raised.value is said


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_machine_that_cannot_be_saved_is_reported(soon, status):
    answers = iter(["active", status])
    monitor = SimpleNamespace(execute=lambda command, deadline: {"status": next(answers)})
    with pytest.raises(VmError, match=f"cannot save or restore the machine: migration {status}"):
        Monitor._await_migration(monitor, soon)


def test_a_machine_is_saved_when_its_migration_has_completed(soon):
    answers = iter(["setup", "active", "completed", "failed"])
    monitor = SimpleNamespace(execute=lambda command, deadline: {"status": next(answers)})
    Monitor._await_migration(monitor, soon)
    assert next(answers) == "failed"

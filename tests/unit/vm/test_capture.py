"""The host reads QEMU's dumps through pipes, and never makes QEMU wait for ever."""

import os

import pytest
from particle_os.vm.argv import RECEIVED, SENT
from particle_os.vm.capture import capturing

from ...waiting import until
from .test_traffic import GUEST, THERE, ask, dumped, frame


@pytest.fixture
def qemu(tmp_path):
    """The pipes as QEMU opens them, while they are read."""
    with capturing(tmp_path) as capture:
        pipes = {name: os.open(tmp_path / name, os.O_WRONLY) for name in (SENT, RECEIVED)}
        yield capture, pipes
        for pipe in pipes.values():
            os.close(pipe)


def dump(data):
    return dumped((data, len(data)))


def test_everything_that_was_forwarded_is_seen_at_once(qemu):
    capture, pipes = qemu
    os.write(pipes[SENT], dump(ask(b"example.org")))
    os.write(pipes[RECEIVED], dump(frame(17, THERE, GUEST, (53, 40000))))
    found = capture.take()
    assert found.names == ("example.org",)
    ((each),) = found.reached
    assert (each.sent > 0, each.received > 0, found.complete) == (True, True, True)
    assert capture.take().reached == (), "the next stage has reached nothing"


def test_more_than_a_pipe_holds_does_not_block(qemu):
    capture, pipes = qemu
    record = dump(frame(more=b"x" * 300))[24:]
    os.write(pipes[SENT], dump(frame()))
    for _ in range(2000):
        os.write(pipes[SENT], record)
    (found,) = capture.take().reached
    assert found.sent == len(frame()) + 2000 * (len(record) - 16)


def test_a_dump_that_breaks_is_read_on_and_known_to_be_incomplete(qemu):
    capture, pipes = qemu
    os.write(pipes[SENT], b"garbage" * 100)
    for _ in range(100):
        os.write(pipes[SENT], b"x" * 4096)
    assert not capture.take().complete


def test_a_reader_that_dies_frees_qemu(tmp_path, monkeypatch):
    def dies(*_):
        raise MemoryError

    monkeypatch.setattr("threading.excepthook", lambda *_: None)
    with capturing(tmp_path) as capture:
        monkeypatch.setattr(capture, "_read", dies)
        pipes = [os.open(tmp_path / name, os.O_WRONLY) for name in (SENT, RECEIVED)]

        def refused():
            # QEMU ignores SIGPIPE, as Python does, and ends its dump.
            try:
                os.write(pipes[0], b"x")
            except BrokenPipeError:
                return True
            return False

        until(refused)
        assert not capture.take().complete


def test_the_end_of_qemu_is_no_loss(tmp_path):
    with capturing(tmp_path) as capture:
        for name in (SENT, RECEIVED):
            pipe = os.open(tmp_path / name, os.O_WRONLY)
            os.write(pipe, dump(frame()))
            os.close(pipe)
        until(lambda: not capture._dumps)
        assert capture.take().complete


def test_a_qemu_that_never_starts_leaves_no_thread(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with capturing(tmp_path):
            pass
    assert len(os.listdir("/proc/self/fd")) == before

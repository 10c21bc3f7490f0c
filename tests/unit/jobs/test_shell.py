"""The bytes of an interactive shell, for a VM that answers and for one that hangs."""

import os
import socket

import pytest
from particle_os.errors import DeadlineExceeded
from particle_os.jobs import shell
from particle_os.system.terminal import ESCAPE

from ...waiting import DeadlineWhen, plenty


class Channel:
    """A shell that ends when it has read `last`, or hangs and takes nothing."""

    closed = False

    def __init__(self, last=b"", hangs=False):
        self.last, self.hangs = last, hangs
        self.got, self.ended = b"", False
        self.looks = 0
        self._ours, self._theirs = socket.socketpair()

    def fileno(self):
        return self._ours.fileno()

    def exit_status_ready(self):
        self.looks += 1
        return not self.hangs and (self.ended if not self.last else self.last in self.got)

    def recv_ready(self):
        return False

    recv_stderr_ready = recv_ready

    def recv(self, size):
        raise AssertionError("it has said nothing")

    recv_stderr = recv

    def send_ready(self):
        return not self.hangs

    def send(self, data):
        assert not self.hangs
        self.got += data[:7]
        return len(data[:7])

    def shutdown_write(self):
        self.ended = True


@pytest.fixture
def keys(monkeypatch):
    """Types bytes on standard input."""
    reading, writing = os.pipe()
    monkeypatch.setattr(shell.sys, "stdin", os.fdopen(reading, "rb"))
    with os.fdopen(writing, "wb", buffering=0) as typed:
        yield typed


def test_the_escape_key_leaves_a_vm_that_hangs(keys):
    keys.write(b"ls\n" + ESCAPE)
    assert not shell._forward(Channel(hangs=True), plenty(), ESCAPE)


def test_the_escape_key_is_seen_behind_input_that_the_vm_does_not_take(keys):
    channel = Channel(hangs=True)
    keys.write(b"x" * 1000)
    deadline = DeadlineWhen(passed=lambda: channel.looks == 3 and not keys.write(ESCAPE))
    assert not shell._forward(channel, deadline, ESCAPE)


def test_a_program_may_send_the_bytes_of_the_escape_key(keys):
    keys.write(b"a" + ESCAPE + b"b")
    keys.close()
    channel = Channel()
    assert shell._forward(channel, plenty(), None)
    assert channel.got == b"a" + ESCAPE + b"b"


def test_all_input_reaches_the_shell_before_its_end(keys):
    keys.write(b"0123456789" * 100)
    keys.close()
    channel = Channel()
    assert shell._forward(channel, plenty(), None)
    assert (channel.got, channel.ended) == (b"0123456789" * 100, True)


def test_a_shell_that_ends_is_no_escape(keys):
    keys.write(b"exit\n")
    assert shell._forward(Channel(last=b"exit\n"), plenty(), ESCAPE)


@pytest.mark.parametrize("escape", [None, ESCAPE])
def test_a_vm_that_says_nothing_is_given_up_at_the_deadline(keys, escape):
    channel = Channel(hangs=True)
    with pytest.raises(DeadlineExceeded):
        shell._forward(channel, DeadlineWhen(passed=lambda: channel.looks > 2), escape)


def test_a_vm_that_takes_no_input_is_given_up(keys, monkeypatch):
    monkeypatch.setattr(shell, "ANSWER_SECONDS", 0.0)
    keys.write(b"ls\n")
    with pytest.raises(DeadlineExceeded, match="takes input"):
        shell._forward(Channel(hangs=True), plenty(), None)

import base64

import pytest
from particle_os.boot.frameworks import image_shell
from particle_os.boot.frameworks.image_shell import ImageShell, NotRun, Ran, pieces
from particle_os.errors import DeadlineExceeded
from particle_os.vm.console import QemuEnded

from ....waiting import DeadlineWhen, plenty
from .conftest import machine


def test_a_command_has_its_status_and_each_of_its_outputs(shell):
    ran = shell.run(b"echo out; printf 'no\\n\\n' >&2; exit 7", plenty())
    assert ran == Ran(7, b"out\n", b"no\n\n")


@pytest.mark.parametrize(
    "text",
    [b"", b"a\nb\n", b"\\\\0101 \\c %s", "ä $HOME `id` '\"".encode(), b"\x03\x04\x11\x13\x15\x7f"],
)
def test_a_command_arrives_byte_for_byte(shell, text):
    """No byte is a control character of the terminal between."""
    assert shell.run(b"cat <<'END'\n%s\nEND" % text, plenty()).stdout == text + b"\n"


@pytest.mark.slow
def test_a_command_may_be_longer_than_a_line_of_the_terminal(shell):
    text = bytes(range(32, 127)).replace(b"'", b"") * 1000
    assert shell.run(b"printf %%s '%s'" % text, plenty()).stdout == text


def test_one_command_follows_the_other(shell):
    assert [shell.run(b"echo %d" % n, plenty()).stdout for n in range(3)] == [
        b"0\n",
        b"1\n",
        b"2\n",
    ]


def test_a_command_has_no_input_and_the_home_of_root(shell):
    assert shell.run(b"cat; echo $HOME", plenty()).stdout == b"/root\n"


def test_long_output_is_cut_and_the_program_does_not_notice(shell):
    ran = shell.run(b"head -c 3000000 /dev/zero; head -c 100000 /dev/zero >&2; echo $?", plenty())
    assert (ran.status, len(ran.stdout), len(ran.stderr)) == (0, 1 << 20, 1 << 16)


@pytest.mark.slow
def test_a_command_that_hangs_is_ended_and_the_next_one_runs(shell, monkeypatch):
    monkeypatch.setattr(image_shell, "COMMAND_SECONDS", 1)
    with pytest.raises(NotRun, match="longer than 1 s"):
        shell.run(b"sleep 600", plenty())
    assert shell.run(b"echo here", plenty()).stdout == b"here\n"


def test_a_command_that_is_too_long_is_not_sent(shell):
    with pytest.raises(NotRun, match="longer than 1048576 bytes"):
        shell.run(bytes(image_shell.COMMAND_BYTES + 1), plenty())


class Guest:
    """A line whose image answers to an order with the next of `answers`."""

    def __init__(self, *answers):
        self.data, self.sent, self._answers = b"", [], list(answers)

    def send(self, data):
        self.sent.append(data)
        if self._answers:
            self.data += self._answers.pop(0)

    def forget(self):
        self.data = b""


def ran(number, out=b"", status=b"0"):
    return b"ran:%d %s  %s\r\n" % (number, base64.b64encode(out), status)


def test_only_the_answer_to_the_order_counts():
    guest = Guest(
        b"noise\ntaken:9\ntaken:1\n", ran(1, b"old") + b"x" + ran(2, b"y") + ran(2, b"new")
    )
    assert ImageShell(machine(), guest, 1.0).run(b"true", plenty()).stdout == b"new"
    assert guest.sent == [b"put 1 true\n", b"run 2 120\n"]


@pytest.mark.parametrize("line", [ran(2, status=b"late"), b"ran:2 A  0\n"])
def test_an_answer_without_a_result_is_told(line):
    with pytest.raises(NotRun, match=r"longer than|damaged"):
        ImageShell(machine(), Guest(b"taken:1\n", line), 1.0).run(b"true", plenty())


def test_a_silent_image_is_asked_once(monkeypatch):
    monkeypatch.setattr(image_shell, "GRACE_SECONDS", 0.1)
    guest = Guest()
    shell = ImageShell(machine(), guest, 1.0)
    for words in ("has not answered", "no longer answers"):
        with pytest.raises(NotRun, match=words):
            shell.run(b"true", plenty())
    assert len(guest.sent) == 1


def test_nothing_is_asked_after_the_deadline():
    guest = Guest()
    with pytest.raises(DeadlineExceeded):
        ImageShell(machine(), guest, 1.0).run(b"true", DeadlineWhen(passed=lambda: True))
    assert guest.sent == []


def test_a_machine_that_ends_ends_the_wait():
    def ended(seconds):
        raise QemuEnded(0, [])

    dead = machine()
    dead.console.read = ended
    with pytest.raises(QemuEnded):
        ImageShell(dead, Guest(), 1.0).run(b"true", plenty())


def test_no_piece_ends_within_an_escape():
    lines = list(pieces(b"\n" * 5000))
    assert "".join(lines) == "\\0012" * 5000
    assert all(len(line) <= image_shell.LINE_CHARACTERS for line in lines)
    assert all(line.endswith("\\0012") for line in lines)

"""The last line of the console, which a view shows while a machine boots."""

import pytest
from particle_os.system.gate import Gate
from particle_os.vm.console import ConsoleLog, LastLine, Transcript

from ..played import SYSTEMD, Played


@pytest.fixture
def lines_of(observe, tmp_path):
    """A function that boots a machine, and returns the lines that a view gets."""

    def lines_of(said, secrets=()):
        transcript = Transcript(ConsoleLog(tmp_path / "console.log", Gate(secrets)))
        machine = Played([*SYSTEMD, *said], answers=15)
        read = machine.read

        def read_and_keep(seconds):
            data = read(seconds)
            transcript.write(data)
            return data

        machine.console.read = read_and_keep
        lines = []
        assert observe(machine, on_output=LastLine(transcript, lines.append).look)[1] is None
        transcript.close()
        return lines

    return lines_of


def test_a_line_of_the_console_is_shown_once_it_is_complete(lines_of):
    lines = lines_of([(10, b"Starting "), (11, b"nginx...\r\nStarted"), (12, b"\r\n")])
    assert lines == [
        "SeaBIOS", "EXTLINUX 6.04", "[ 0.0] Linux version 6.12", "Loading, please wait...",
        "Welcome to Debian", "Starting nginx...", "Started",
    ]  # fmt: skip


def test_the_last_line_before_a_silence_is_shown(lines_of):
    lines = lines_of([(10 + i / 100, b"line %d\r\n" % i) for i in range(20)])
    assert lines[-1] == "line 19"
    assert len(lines) < 10


def test_a_flood_makes_two_events_a_second(lines_of):
    lines = lines_of([(10 + i / 250, b"flood %d\r\n" % i * 9) for i in range(1000)])
    assert 6 <= len([line for line in lines if line.startswith("flood")]) <= 9


def test_a_line_without_an_end_is_cut(lines_of):
    (line,) = [each for each in lines_of([(10, b"x" * 3000 + b"\n")]) if "xx" in each]
    assert len(line) == 200
    assert lines_of([(10, b"x" * 40000)])[-1] == "Welcome to Debian"


def test_no_escape_gets_through(lines_of):
    said = b"\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[ \x9b \xe2\x80\xae\r\n"
    assert lines_of([(10, said)])[-1] == "red \\x1b[ \ufffd \\u202e"


def test_no_secret_gets_through_even_if_lines_divide_it(lines_of):
    said = [(10, b"my hunter2-\r\n"), (11, b"and-more\r\n"), (13, b"end\r\n")]
    assert lines_of(said, [b"hunter2-and-more"])[-2:] == ["***", "end"]

"""Tests of the console; a real child on a real pseudo-terminal stands in for QEMU."""

import itertools
import os
import re
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from particle_os.errors import DeadlineExceeded, InfrastructureError
from particle_os.system.confinement import Confinement
from particle_os.system.gate import Gate
from particle_os.vm.console import Console, ConsoleLog, GuestPanic, QemuEnded

from ...waiting import HANG_SECONDS, DeadlineWhen, until

pytestmark = pytest.mark.slow
# The interpreter of the tests may be in the user's home.
PYTHON = Confinement(reads=(Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).parent))


@pytest.fixture
def start(tmp_path):
    """Starts Python code on a console; closes every console at the end."""
    consoles = []

    def start(code, *argv):
        command = argv or (sys.executable, "-I", "-S", "-c", f"import os, sys, time\n{code}")
        path = tmp_path / f"console{len(consoles)}.log"
        log = ConsoleLog(path, Gate())
        consoles.append(Console(command, directory=tmp_path, transcript=log, within=PYTHON))
        consoles[-1].file = path
        return consoles[-1]

    yield start
    for console in consoles:
        console.close()


def test_what_is_waited_for_is_found(start, soon):
    console = start("print('port=1234'); time.sleep(3600)")
    assert console.expect(r"port=(\d+)", soon).group(1) == b"1234"


def test_the_first_of_several_is_told(start, soon):
    console = start("print('beta'); time.sleep(3600)")
    index, match = console.expect_any([re.compile(b"alpha"), re.compile(b"beta")], soon)
    assert (index, match.group()) == (1, b"beta")


def test_a_marker_that_comes_byte_by_byte_is_found(start, soon):
    console = start("""
for byte in b"noise PARTICLE-OS-READY noise":
    os.write(1, bytes([byte]))
    time.sleep(0.005)
time.sleep(3600)
""")
    assert console.expect("PARTICLE-OS-READY", soon)


def test_what_is_sent_arrives_and_is_not_echoed(start, soon):
    console = start("print('READY'); print('got', sys.stdin.readline()[::-1]); time.sleep(3600)")
    console.expect("READY", soon)
    console.send_line("olleh")
    assert console.expect(r"got\s+(\w+)", soon).group(1) == b"hello"
    console.close()
    assert b"olleh" not in console.file.read_bytes()


def test_a_kernel_panic_ends_any_wait_at_once(start, soon):
    console = start("""
os.write(1, b"fine so far\\n"
    b"[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\\nCall Trace:\\n")
time.sleep(3600)
""")
    with pytest.raises(GuestPanic, match="Unable to mount root fs") as panic:
        console.expect("never", soon)
    assert "fine so far" in panic.value.tail
    assert "Call Trace:" in panic.value.tail


def test_the_words_of_a_panic_may_be_no_text(start, soon):
    console = start(r"""
os.write(1, b"Kernel panic - not syncing: \xff x\n")
time.sleep(3600)
""")
    with pytest.raises(GuestPanic, match="Kernel panic - not syncing: \ufffd x"):
        console.expect("never", soon)


@pytest.mark.parametrize("after", [0, 10_000, 60_000])
def test_a_panic_is_seen_before_a_burst_of_further_output(start, soon, after):
    console = start(f"""
os.write(1, b"Kernel panic - not syncing: Oops\\n" + b"trace\\n" * ({after} // 6))
time.sleep(3600)
""")
    with pytest.raises(GuestPanic, match="Oops"):
        console.expect("never", soon)


def test_our_own_inits_failure_ends_any_wait(start, soon):
    console = start("print('PARTICLE-OS-FAILED no root disk', flush=True); time.sleep(3600)")
    with pytest.raises(GuestPanic, match="no root disk"):
        console.expect("never", soon)


def test_death_by_a_signal_is_told_with_a_negative_status(start, soon):
    console = start("print('last words', flush=True); time.sleep(0.1); os.kill(os.getpid(), 9)")
    with pytest.raises(QemuEnded, match="QEMU was killed by signal 9") as ended:
        console.expect("never", soon)
    assert ended.value.status == -9
    assert ended.value.tail == ("last words",)


@pytest.mark.parametrize("status", [0, 1, 42])
def test_the_exit_status_is_told(start, soon, status):
    console = start(f"sys.exit({status})")
    with pytest.raises(QemuEnded, match=f"QEMU ended with status {status}") as ended:
        console.expect("never", soon)
    assert ended.value.status == status
    assert not console.is_alive()


def test_what_came_before_the_end_is_still_found(start, soon):
    console = start("print('answer')")
    until(lambda: not console.is_alive())
    assert console.expect("answer", soon)


def test_the_deadline_is_kept_with_the_tail(start):
    console = start("print('booting', flush=True); time.sleep(3600)")
    deadline = DeadlineWhen("the boot", passed=console.transcript.tail)
    with pytest.raises(DeadlineExceeded, match="the boot took longer") as late:
        console.expect("never", deadline)
    assert late.value.tail == ("booting",)


def test_a_flood_stays_bounded_in_memory(start, soon):
    console = start("""
for _ in range(24):
    os.write(1, (b"x" * 1023 + b"\\n") * 1024)
os.write(1, b"THE-END\\n")
time.sleep(3600)
""")
    tracemalloc.start()
    try:
        console.expect("THE-END", soon)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_the_deadline_is_kept_in_a_flood(start):
    console = start("while True: os.write(1, b'flood\\n' * 1000)")
    pieces = itertools.count()
    with pytest.raises(DeadlineExceeded):
        console.expect("never", DeadlineWhen(passed=lambda: next(pieces) == 50))


def test_the_transcript_is_kept_whole_and_its_tail_is_safe_to_show(start, soon):
    console = start(r"""
os.write(1, b"first\n" + b"line\n" * 50 + b"\x1b[31mred\x1b[0m \x07bell\nEND\n")
time.sleep(3600)
""")
    console.expect("END", soon)
    tail = console.transcript.tail()
    console.close()
    text = console.file.read_bytes()
    assert text.startswith(b"first\r\n")
    assert text.count(b"line\r\n") == 50
    assert tail[-2:] == ["red \\x07bell", "END"]
    assert len(tail) <= 15


def test_a_watched_console_reports_death_once(start):
    console = start("time.sleep(0.2); os.kill(os.getpid(), 15)")
    called = []
    done = threading.Event()
    console.watch(lambda: (called.append(1), done.set()))
    assert done.wait(HANG_SECONDS)
    assert isinstance(console.death, QemuEnded)
    assert console.death.status == -15
    assert called == [1]


def test_closing_kills_and_reaps_the_program(start):
    console = start("import signal; signal.signal(15, signal.SIG_IGN); time.sleep(3600)")
    assert console.is_alive()
    console.close()
    assert not console.is_alive()


def test_closing_waits_for_a_program_that_dies_slowly(start, monkeypatch):
    console = start("time.sleep(3600)")
    process = console._child.ptyproc
    is_alive, looks = process.isalive, itertools.count()
    # A busy host: the killed program is still there for the first looks.
    monkeypatch.setattr(console, "_drain", lambda: None)
    monkeypatch.setattr(process, "isalive", lambda: next(looks) < 10 or is_alive())
    console.close()
    assert not console.is_alive()


def test_closing_a_watched_console_ends_its_watcher(start):
    console = start("while True: print('x'); time.sleep(0.05)")
    console.watch(lambda: None)
    console.close()
    assert "console" not in [t.name for t in threading.enumerate()]


def test_a_program_that_is_missing_is_an_error_of_ours(start, soon):
    with pytest.raises(InfrastructureError):
        start("", "no-such-qemu", "-version").expect("x", soon)


class Person:
    """A person at a terminal: two pipes, and a thread that runs `converse`."""

    def __init__(self, console):
        self.keys, self._keys = os.pipe()
        self._screen, self.screen = os.pipe()
        self.seen = b""
        self.error = None
        self._console = console
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def _talk(self):
        try:
            self._console.converse(self.keys, self.screen, b"\x1d")
        except QemuEnded as error:
            self.error = error

    def type(self, keys):
        os.write(self._keys, keys)

    def see(self, text):
        while text not in self.seen:
            self.seen += os.read(self._screen, 65536)

    def hang_up(self):
        os.close(self._keys)

    def is_done(self):
        self._thread.join(HANG_SECONDS)
        return not self._thread.is_alive()


ECHO = """
import tty
tty.setraw(0)
print("READY", flush=True)
while True:
    data = os.read(0, 100)
    os.write(1, data.upper())
    if data == b"end\\r":
        sys.exit({status})
"""


def test_a_person_talks_with_the_guest_until_the_escape(start):
    person = Person(start(ECHO.format(status=0)))
    person.see(b"READY")
    person.type(b"hello\x03\x1b[A")
    person.see(b"HELLO\x03\x1b[A")
    person.type(b"last\x1dnot this")
    assert person.is_done()
    assert person.error is None


def test_a_conversation_ends_with_the_guest(start):
    person = Person(start(ECHO.format(status=0)))
    person.see(b"READY")
    person.type(b"end\r")
    assert person.is_done()
    assert person.error is None
    assert b"READY" in person.seen


def test_a_guest_that_ends_badly_is_told(start):
    person = Person(start(ECHO.format(status=3)))
    person.see(b"READY")
    person.type(b"end\r")
    assert person.is_done()
    assert person.error.status == 3


def test_a_person_who_hangs_up_ends_it(start):
    person = Person(start(ECHO.format(status=0)))
    person.see(b"READY")
    person.hang_up()
    assert person.is_done()


def test_the_escape_is_heard_although_the_guest_takes_nothing(start):
    """The terminal of a hanging guest buffers only some kilobytes."""
    person = Person(start("import tty; tty.setraw(0); print('READY'); time.sleep(3600)"))
    person.see(b"READY")
    for _ in range(40):
        person.type(b"x" * 1000)
    person.type(b"\x1d")
    assert person.is_done()


def test_a_flood_arrives_whole_at_a_slow_terminal(start):
    person = Person(start("import tty; tty.setraw(1); os.write(1, b'y' * 300000 + b'END')"))
    person.see(b"END")
    assert person.seen.count(b"y") == 300000
    assert person.is_done()


def test_the_end_is_awaited_for_a_while_and_no_longer(start):
    console = start("sys.stdin.readline()")
    assert not console.ends_within(0.05)
    console.send_line("")
    assert console.ends_within(HANG_SECONDS)

"""pytest-testinfra runs for real, against the stand-in for an image."""

import os
import signal
import socket

import pytest
from particle_os.boot.frameworks import testinfra
from particle_os.boot.frameworks.image_shell import NotRun, Ran
from particle_os.errors import DeadlineExceeded, InfrastructureError

from ....waiting import DeadlineWhen, is_running, moment, plenty, until

# Each test starts pytest.
pytestmark = pytest.mark.slow

TESTS = """\
import pytest

def test_file(host):
    assert host.file("/etc/passwd").exists
    assert host.file("/proc/self/status").content_string.startswith("Name:")

@pytest.mark.parametrize("number", [3, 4])
def test_status(host, number):
    done = host.run("printf '<%%s>' %s; echo 'err\\xe4' >&2; exit 3", "a b")
    assert (done.stdout, done.stderr) == ("<a b>", "err\\xe4\\n")
    assert done.rc == number

def test_skipped(host):
    pytest.skip("not today")

@pytest.mark.xfail(reason="a known defect")
def test_known(host):
    assert host.run("false").rc == 0

@pytest.fixture
def broken(host):
    raise ValueError("no such thing")

def test_setup(broken):
    pass
"""


@pytest.fixture
def written(tmp_path):
    """Writes a file of tests, and returns its directory."""

    def write(text, name="test_image.py"):
        directory = tmp_path / "tests"
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(text)
        return directory

    return write


@pytest.fixture
def private(tmp_path):
    directory = tmp_path / "private"
    directory.mkdir()
    return directory


def run(tests, shell, private, deadline=None):
    found = testinfra.results(tests, shell, private, deadline or plenty())
    return {check.name.removeprefix("testinfra "): (check.passed, check.detail) for check in found}


def test_each_test_is_a_check_and_nothing_is_left_beside_the_tests(shell, written, private):
    tests = written(TESTS)
    found = run(tests, shell, private)
    passed, detail = found.pop("test_image.py::test_status[image-4]")
    assert (passed, detail.partition(" / ")[0]) == (False, "assert 3 == 4")
    assert {name.removeprefix("test_image.py::"): how for name, how in found.items()} == {
        "test_file": (True, ""),
        "test_status[image-3]": (True, ""),
        "test_skipped": (True, "skipped: not today"),
        "test_known": (True, "skipped: fails as expected a known defect"),
        "test_setup": (False, "ValueError: no such thing"),
    }
    assert [path.name for path in tests.iterdir()] == ["test_image.py"]


class Asked:
    """A shell of an image that notes the commands, and answers with `answer`."""

    def __init__(self, answer=None):
        self.commands, self._answer = [], answer

    def run(self, command, deadline):
        self.commands.append(command)
        return self._answer()

    def wait(self, seconds):
        pass


def test_a_command_without_a_result_fails_the_test_that_asked(written, private):
    def late():
        raise NotRun("the command took longer than 120 s")

    tests = written("def test_one(host):\n    host.run('sleep 600')\n")
    ((passed, detail),) = run(tests, Asked(late), private).values()
    assert not passed
    assert "did not run a command: the command took longer than 120 s" in detail


def test_a_file_of_tests_may_be_named_too(shell, written, private):
    """No warning of ours ends tests for which warnings are errors."""
    written("[pytest]\nfilterwarnings = error\n", "pytest.ini")
    tests = written("def test_one(host):\n    assert host.run('true').rc == 0\n", "one.py")
    assert run(tests / "one.py", shell, private) == {"one.py::test_one": (True, "")}
    assert "warning" not in (private / testinfra.OUTPUT).read_text()


def test_the_tests_ask_the_image_whatever_hosts_they_name(written, private):
    asked = Asked(lambda: Ran(0, b"", b""))
    tests = written("testinfra_hosts = ['local://']\ndef test_one(host):\n    host.run('id')\n")
    assert run(tests, asked, private) == {"test_image.py::test_one": (True, "")}
    assert asked.commands == [b"id"]


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("", "testinfra", "there is no test"),
        ("import no_such_module\n", "test_image.py", "not collected: E   ModuleNotFoundError"),
    ],
)
def test_tests_that_cannot_run_do_not_pass(written, private, text, name, words):
    ((found, (passed, detail)),) = run(written(text), Asked(), private).items()
    assert (found, passed) == (name, False)
    assert words in detail


def test_a_wrong_configuration_is_no_fault_of_the_image(written, private):
    tests = written("[pytest]\naddopts = --no-such-option\n", "pytest.ini")
    with pytest.raises(InfrastructureError, match="pytest failed") as raised:
        run(tests, Asked(), private)
    assert any("--no-such-option" in line for line in raised.value.tail)


def test_a_test_that_ends_pytest_is_no_fault_of_the_image(written, private):
    tests = written("import os\ndef test_one(host):\n    os._exit(0)\n")
    with pytest.raises(InfrastructureError, match="status unknown"):
        run(tests, Asked(), private)


LEFT_BEHIND = """\
import pathlib, subprocess
def test_one():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    pathlib.Path("pid").write_text(str(child.pid))
    assert "x" * 5_000_000 == ""
"""


def test_a_program_that_a_test_leaves_behind_does_not_hold_the_boot_test(written, private):
    """The fault of the test is long, too."""
    tests = written(LEFT_BEHIND)
    written("[pytest]\naddopts = -s\n", "pytest.ini")
    ((passed, detail),) = run(tests, Asked(), private).values()
    os.kill(int((tests / "pid").read_text()), signal.SIGKILL)
    assert not passed
    assert len(detail) <= 4000


def test_a_command_that_is_too_long_ends_the_tests(written, private):
    tests = written("def test_one(host):\n    host.run('x' * 5_000_000)\n")
    with pytest.raises(InfrastructureError, match="exceeds 1048576 bytes"):
        run(tests, Asked(), private)


HANGS = """\
import os, pathlib, subprocess, time
def test_one():
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}\\n")
    time.sleep(600)
"""


def test_no_process_outlives_the_deadline(written, private):
    tests = written(HANGS)
    pids = tests / "pids"
    late = DeadlineWhen(passed=lambda: pids.exists() and pids.read_text().endswith("\n"))
    with pytest.raises(DeadlineExceeded):
        run(tests, Asked(), private, late)
    until(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()))


def test_pytest_that_reads_nothing_does_not_stop_the_boot_test():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        testinfra._send(ours, bytes(1 << 24), moment())
        assert theirs.recv(1) == bytes(1)

"""The exit status is the same for all kinds of standard streams."""

import subprocess
import sys
from pathlib import Path

import pytest

from ...waiting import HANG_SECONDS

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).with_name("particle-os")
# The arguments, and the exit status when all streams can be used.
COMMANDS = {
    "success": (["version"], 0),
    "wrong usage": (["build", "--no-such-option"], 2),
    "missing recipe": (["build", "missing.yml"], 2),
    "missing recipe, JSON": (["build", "missing.yml", "--json"], 2),
    "missing image": (["inspect", "missing.raw"], 2),
    "refused image": (["boot-test", "zipped"], 2),
}


def status(arguments, redirections, directory):
    words = ["sh", "-c", f'exec "$@" {redirections}', "sh", PROGRAM, *arguments]
    return subprocess.run(words, cwd=directory, timeout=HANG_SECONDS, check=False).returncode


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", COMMANDS)
def test_messages_that_cannot_be_written_change_no_status(tmp_path, command, redirections):
    (tmp_path / "zipped").write_bytes(b"PK\3\4")
    arguments, expected = COMMANDS[command]
    assert status(arguments, redirections, tmp_path) == expected


def test_a_system_that_is_not_linux_gets_one_line():
    script = "import runpy, sys; sys.platform = 'darwin'; runpy.run_module('particle_os.__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr == "error: particle-os runs on Linux, not on darwin: use a Linux VM\n"


def test_a_result_that_cannot_be_written_is_no_success(tmp_path):
    assert status(["version"], ">/dev/full 2>/dev/null", tmp_path) == 5
    assert status(["list", "stages", "--json"], ">/dev/full 2>/dev/full", tmp_path) == 5
    assert status(["inspect", "missing.raw"], ">/dev/full", tmp_path) == 2


def test_a_failure_whose_result_is_lost_says_both(tmp_path):
    (tmp_path / "x.yml").write_text("name: x\nwrong: 1\n")
    script = f'"{PROGRAM}" validate --json x.yml >/dev/full'
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "standard output cannot be written: No space left on device" in done.stderr


def test_a_reader_that_goes_away_ends_the_program_quietly(tmp_path):
    script = f'{{ "{PROGRAM}" schema; echo $? >&2; }} | true'
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr in ("141\n", "0\n")


def test_no_message_goes_into_a_file_that_took_the_number_of_a_closed_stream(tmp_path):
    """The recipe would be the first file that is opened."""
    (tmp_path / "x.yml").write_text("name: x\nwrong: 1\n")
    assert status(["validate", "x.yml"], "<&- >&- 2>&-", tmp_path) == 2
    assert (tmp_path / "x.yml").read_text() == "name: x\nwrong: 1\n"

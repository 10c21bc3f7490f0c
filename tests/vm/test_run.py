"""Runs an image on a real terminal: typed text arrives, and no file or process stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest

from .conftest import CONFINE, Account, Outcome, leftovers, sha256, user_qemus

Built = tuple[Outcome, Path]
BOOT_SECONDS = 600
ESCAPE = "\x1d"


class Terminal:
    """A pseudo-terminal with `particle-os run`; the controller is a grandchild of the test."""

    def __init__(self, account: Account, place: Path, *arguments: str | Path) -> None:
        self.account = account
        argv = [CONFINE, account.uid, account.gid, account.venv / "bin/particle-os"]
        self.child: Any = pexpect.spawn(
            sys.executable,
            [str(word) for word in (*argv, "run", *arguments, "--accel", "tcg")],
            env=account.environment,
            cwd=str(place),
            timeout=BOOT_SECONDS,
            dimensions=(24, 200),
        )
        self.settings = termios.tcgetattr(self.child.child_fd)

    def is_whole(self) -> bool:
        """Whether the terminal gets its old settings back within some seconds."""
        return _soon(lambda: termios.tcgetattr(self.child.child_fd) == self.settings)

    def qemu_is_gone(self) -> bool:
        return _soon(lambda: user_qemus(self.account) == [])


def _soon(condition: Any) -> bool:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.1)
    return bool(condition())


@pytest.fixture
def place(account: Account) -> Path:
    return account.make_directory("running")


def test_a_person_logs_in_and_leaves(account: Account, built: Built, place: Path) -> None:
    image = built[1] / "minimal-test.qcow2"
    before = sha256(image)
    terminal = Terminal(account, place, image)
    terminal.child.expect("changes are thrown away")
    terminal.child.expect(r"Ctrl-\] ends it")
    terminal.child.expect("minimal-test login: ")
    assert termios.tcgetattr(terminal.child.child_fd) != terminal.settings
    terminal.child.send("admin\r")
    terminal.child.expect("Password: ")
    terminal.child.send(ESCAPE)
    terminal.child.expect(pexpect.EOF)
    terminal.child.close()
    assert terminal.child.exitstatus == 0
    assert terminal.qemu_is_gone()
    assert sha256(image) == before
    assert leftovers(account, place) == []
    assert list(place.iterdir()) == []


def test_a_killed_controller_leaves_neither_qemu_nor_a_broken_terminal(
    account: Account, built: Built, place: Path
) -> None:
    image = built[1] / "minimal-test.raw"
    before = sha256(image)
    terminal = Terminal(account, place, image, "--format", "raw", "--keep", "--ssh")
    terminal.child.expect(r"ssh -p (\d+) USER@127\.0\.0\.1")
    port = int(terminal.child.match.group(1))
    terminal.child.expect(r"Ctrl-\] ends it")
    terminal.child.expect("Linux version")
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    places = [line.split()[1] for line in listening.splitlines() if f":{port:04X} " in line]
    assert f"0100007F:{port:04X}" in places, "127.0.0.1"
    assert not any(place.startswith("0" * 8) for place in places)
    (qemu,) = user_qemus(account)
    controller = int(Path(f"/proc/{qemu}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(controller, signal.SIGKILL)
    assert terminal.qemu_is_gone()
    assert terminal.is_whole()
    terminal.child.close(force=True)
    (kept,) = place.iterdir()
    info = ["qemu-img", "info", "--output=json", kept]
    told = json.loads(subprocess.run(info, check=True, capture_output=True, text=True).stdout)
    assert told["backing-filename"] == str(image)
    kept.unlink()
    assert sha256(image) == before


def test_without_a_terminal_nothing_runs(account: Account, built: Built) -> None:
    outcome = account.run("run", built[1] / "minimal-test.raw", "--accel", "tcg")
    assert outcome.status == 2
    assert "terminal" in outcome.stderr

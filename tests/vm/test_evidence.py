"""The evidence that a boot test leaves for people."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.vm.conftest import CONFINE, Account, Outcome

Built = tuple[Outcome, Path]
FILES = "boot.sh console.log journal.txt packages.txt screen.png".split()
BOOT_SECONDS = 240.0


def place(built: Built) -> Path:
    return built[1] / "minimal-test.evidence" / "bios"


def test_everything_is_there(built: Built) -> None:
    assert sorted(os.listdir(place(built))) == FILES
    assert b"Linux version 6." in (place(built) / "console.log").read_bytes()
    assert (place(built) / "screen.png").read_bytes().startswith(b"\x89PNG\r\n")
    journal = (place(built) / "journal.txt").read_text()
    assert " kernel: Linux version 6." in journal
    assert "Reached target multi-user.target" in journal
    packages = (place(built) / "packages.txt").read_text().splitlines()
    assert [line.split()[2] for line in packages if line.startswith("systemd ")] == ["amd64"]


def test_the_image_boots_by_hand(account: Account, built: Built) -> None:
    confined = [sys.executable, str(CONFINE), str(account.uid), str(account.gid)]
    temporary = account.make_directory("by-hand")
    with subprocess.Popen(
        [*confined, "sh", place(built) / "boot.sh"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={**account.environment, "TMPDIR": str(temporary)},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        said, until = b"", time.monotonic() + BOOT_SECONDS
        while b"Linux version 6." not in said and time.monotonic() < until:
            said += process.stdout.read() or b""
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGTERM)
    assert b"Linux version 6." in said, said[-2000:]
    assert list(temporary.iterdir()) == []


def test_a_broken_image_shows_its_screen(account: Account) -> None:
    """The evidence has the screen, as a person at the machine sees it; the console is silent."""
    image = account.write(account.directory / "text.img", "not a disk\n" * 1000)
    evidence, report = account.make_directory("broken-evidence"), account.directory / "broken.html"
    outcome = account.run("boot-test", image, "--evidence", evidence, "--report", report)
    assert outcome.status == 4
    assert sorted(os.listdir(evidence / "bios")) == ["boot.sh", "console.log", "screen.png"]
    text = report.read_text()
    assert "<title>text.img: no-bootable-device</title>" in text
    assert 'src="data:image/png;base64,' in text

"""Verdicts: the good image passes, and each broken one gets the name of what broke it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Account, Outcome, leftovers

MIB = 1 << 20
Built = tuple[Outcome, Path]
# Twelve characters of the kernel's command line that the mutations replace.
PLACE = b"console=tty0"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_once(image: Path, old: bytes, new: bytes) -> None:
    """Overwrites bytes of the image where they stand, which must be in one place."""
    assert len(old) == len(new)
    data = image.read_bytes()
    assert data.count(old) == 1
    with image.open("r+b") as file:
        file.seek(data.index(old))
        file.write(new)


def kernel_argument(word: bytes) -> Callable[[Path], None]:
    return lambda image: replace_once(image, b" ro " + PLACE, b" ro " + word.ljust(len(PLACE)))


def no_boot_code(image: Path) -> None:
    with image.open("r+b") as file:
        file.write(bytes(512))


def failing_unit(image: Path) -> None:
    """A service that fails, enabled for multi-user.target."""
    unit = image.with_name("bad.service")
    unit.write_text("[Service]\nExecStart=/bin/sh -c 'echo it went wrong; exit 7'\n")
    place = "/etc/systemd/system"
    wanted = f"{place}/multi-user.target.wants"
    commands = [f"write {unit} {place}/bad.service", f"mkdir {wanted}"]
    commands.append(f"symlink {wanted}/bad.service ../bad.service")
    for command in commands:
        argv = ["/sbin/debugfs", "-w", "-R", command, f"{image}?offset={MIB}"]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)


@pytest.fixture
def copy(account: Account, built: Built) -> Path:
    directory = account.make_directory("broken")
    image = directory / "image.raw"
    subprocess.run(["cp", "--sparse=always", built[1] / "minimal-test.raw", image], check=True)
    os.chown(image, account.uid, account.gid)
    return image


def test_a_good_image_passes_untouched_and_is_a_new_machine_each_time(
    account: Account, built: Built
) -> None:
    image = built[1] / "minimal-test.qcow2"
    before = sha256(image)
    outcome = account.run("boot-test", image, "--json", "--unit", "multi-user.target")
    assert outcome.status == 0, outcome.stderr
    verdict = outcome.json()
    assert verdict["status"] == "passed"
    assert sha256(image) == before
    first = built[0].json()["boot"][0]["facts"]["machine-id"]
    assert len(verdict["facts"]["machine-id"]) == 32
    assert verdict["facts"]["machine-id"] != first
    assert leftovers(account, built[1]) == []


BROKEN = {
    "no-bootable-device": no_boot_code,
    "kernel-panic": kernel_argument(b"rdinit=/none"),
    "emergency-mode": kernel_argument(b"emergency"),
    "root-not-found": kernel_argument(b"break=top"),
    "units-failed": failing_unit,
}


@pytest.mark.parametrize("status", BROKEN)
def test_a_broken_image_is_told_apart(account: Account, copy: Path, status: str) -> None:
    BROKEN[status](copy)
    before = sha256(copy)
    outcome = account.run("boot-test", copy, "--json")
    assert outcome.json()["status"] == status, outcome.stdout
    assert outcome.status == 4
    assert sha256(copy) == before
    if status == "units-failed":
        assert "bad.service" in outcome.json()["message"]
        assert "it went wrong" in outcome.json()["facts"]["journal:bad.service"]


def test_a_check_that_does_not_hold(account: Account, built: Built) -> None:
    image = built[1] / "minimal-test.raw"
    outcome = account.run("boot-test", image, "--unit", "no-such.service")
    assert outcome.status == 4
    assert "checks-failed" in outcome.stdout
    assert "no-such.service" in outcome.stdout


def test_a_time_out_says_how_far_it_came(account: Account, built: Built) -> None:
    outcome = account.run("boot-test", built[1] / "minimal-test.raw", "--timeout", "3")
    assert outcome.status == 4
    assert "timed-out" in outcome.stdout
    assert "last seen: " in outcome.stdout


def test_a_file_that_is_no_image(account: Account) -> None:
    path = account.write(account.directory / "text.img", "not a disk\n" * 1000)
    outcome = account.run("boot-test", path)
    assert outcome.status == 4
    assert "no-bootable-device" in outcome.stdout


def test_an_image_that_refers_to_another_file_is_refused(account: Account, built: Built) -> None:
    overlay = account.make_directory("overlay") / "x.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"]
    subprocess.run([*create, overlay, "1M"], check=True)
    os.chown(overlay, account.uid, account.gid)
    outcome = account.run("boot-test", overlay)
    assert outcome.status == 2
    assert "refers to another file" in outcome.stderr
    shutil.rmtree(overlay.parent)

"""An image of arm64 from this host: built, verified and booted, and broken in one way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .arm64_mutations import ARM64_MUTATIONS
from .conftest import Account, example

PHASES = ["firmware", "boot loader", "kernel", "initramfs", "init", "answer", "checks"]


@pytest.fixture(scope="module")
def built(account: Account) -> Path:
    """The directory with the image of the shipped recipe for arm64."""
    output = account.make_directory("arm64-out")
    outcome = account.run("build", example(account, "arm64"), "--output", output, "--json")
    assert outcome.status == 0, outcome.stderr
    result = outcome.json()
    assert result["architecture"] == "arm64"
    (boot,) = result["boot"]
    assert boot["status"] == "passed"
    assert [name for name in boot["phases"] if name != "login prompt"] == PHASES
    return output


def test_an_image_of_arm64_boots_and_has_no_defect(account: Account, built: Path) -> None:
    outcome = account.run("inspect", built / "arm64.qcow2", "--verify", "--json")
    assert outcome.status == 0, outcome.stdout
    assert "systemd-boot (UEFI, arm64)" in outcome.stdout


def test_nothing_is_built_again(account: Account, built: Path) -> None:
    argv = ("build", example(account, "arm64"), "--output", built, "--dry-run")
    outcome = account.run(*argv)
    assert outcome.stdout.count("cached") > 3, outcome.stdout


def test_a_broken_image_of_arm64_is_told_apart(account: Account, built: Path) -> None:
    """`make mutations` has the others."""
    mutation = ARM64_MUTATIONS["arm64-loader-of-amd64"]
    image = account.make_directory("broken-arm64") / "broken.raw"
    shutil.copyfile(built / "arm64.raw", image)
    mutation.change(image)
    outcome = account.run("boot-test", image, "--json", "--architecture", "arm64")
    verdict = outcome.json()
    assert verdict["status"] == mutation.status, outcome.stdout
    assert mutation.says in verdict["message"]
    assert outcome.status == 4
    found = account.run("inspect", image, "--verify")
    assert "is a program for amd64, and its name is that of arm64" in found.stdout
    image.unlink()

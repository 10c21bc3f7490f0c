"""An image of arm64 from this host: built, verified and booted, and broken in one way."""

from __future__ import annotations

import shutil
from dataclasses import replace
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


# What the shipped recipe leaves out.
MORE = """\
    swap: 64M
    grow: true
    formats: [raw, qcow2, vmdk, vdi, vhd]
"""
MORE_CHECKS = """\
    - command: [swapon, --show=NAME, --noheadings]
      contains: /swapfile
    - unit: systemd-growfs-root.service
"""
DATE = ("--source-date", "1790000000")


@pytest.mark.weekly
def test_two_builds_on_two_hosts_are_the_same_bytes(account: Account, built: Path) -> None:
    """Swap, a disk that grows, and every format are those of the other architecture."""
    text = example(account, "arm64").read_text()
    assert "    formats: [raw, qcow2]\n" in text
    text = text.replace("    formats: [raw, qcow2]\n", MORE) + MORE_CHECKS
    text = text.replace("    packages:\n", "    packages:\n      - systemd-repart\n", 1)
    recipe = account.write(account.directory / "arm64.yml", text)
    other = {**account.environment, "XDG_CACHE_HOME": str(account.make_directory("other-host"))}
    digests = []
    for number, user in enumerate((account, replace(account, environment=other))):
        output = account.make_directory(f"arm64-same-{number}")
        more = ["--no-boot-test"] if number else []
        outcome = user.run(
            "build", recipe, "--output", output, "--no-cache", *DATE, *more, "--json"
        )
        assert outcome.status == 0, outcome.stderr
        found = {each["path"]: each["sha256"] for each in outcome.json()["artifacts"]}
        assert {name.partition(".")[2] for name in found} >= {"raw", "qcow2", "vmdk", "vdi", "vhd"}
        digests.append(found["arm64.raw"])
    assert digests[0] == digests[1]


@pytest.mark.weekly
def test_a_shell_and_a_stage_alone_run_programs_of_arm64(account: Account, built: Path) -> None:
    entered = account.run("shell", example(account, "arm64"), text="uname -m; exit 7\n")
    assert entered.status == 7, entered.stderr
    assert "aarch64" in entered.stdout
    options = account.write(account.directory / "options.yml", "command: [uname, -m]\n")
    arguments = ("--options", options, "--base", "mmdebstrap:trixie", "--architecture", "arm64")
    alone = account.run("stage", "run", "run", *arguments, "--progress", "plain", "-v")
    assert alone.status == 0, alone.stderr
    assert "aarch64" in alone.stdout + alone.stderr


@pytest.mark.weekly
def test_a_commit_of_arm64_leaves_an_update_that_is_bad(account: Account) -> None:
    text = example(account, "edge").read_text().replace("amd64", "arm64")
    assert "      - grub-pc-bin\n" in text
    text = text.replace("      - grub-pc-bin\n", "").replace(
        "stages:\n", "architecture: arm64\nstages:\n"
    )
    text = text.replace("boot-test:\n", "boot-test:\n  fallback: true\n")
    recipe = account.write(account.directory / "edge-arm64.yml", text)
    output = account.make_directory("edge-arm64")
    outcome = account.run("build", recipe, "--output", output, "--json")
    assert outcome.status == 0, outcome.stderr
    found = [(boot["step"], boot["firmware"], boot["status"]) for boot in outcome.json()["boot"]]
    assert found == [(step, "uefi", "passed") for step in (None, "bad-update", "fallback")]

"""Each defect of an image has a finding with a code, and a good image has no findings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .. import samples
from .conftest import Account, Outcome, leftovers, recipe_text, sha256

MIB = 1 << 20
Built = tuple[Outcome, Path]
FSTAB = "UUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\n"


def debugfs(image: Path, *commands: str) -> None:
    """Changes the image's ext4 partition, which starts at 1 MiB, without a mount."""
    argv = ["/sbin/debugfs", "-w", "-f", "-", f"{image}?offset={MIB}"]
    text = "".join(f"{command}\n" for command in commands)
    subprocess.run(argv, input=text, text=True, check=True, capture_output=True, timeout=60)


def kernel_of(image: Path) -> str:
    argv = ["/sbin/debugfs", "-R", "ls -p /boot", f"{image}?offset={MIB}"]
    told = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    names = [line.split("/")[5] for line in told.splitlines() if line]
    return next(name for name in names if name.startswith("vmlinuz-"))


def test_nothing_is_wrong_with_a_good_image(built: Built) -> None:
    """The build verifies the image before it converts and boots it."""
    verification = built[0].json()["verification"]
    assert verification["findings"] == []
    assert verification["seconds"] > 0


def test_planted_defects_are_told_by_their_codes(account: Account, built: Built) -> None:
    directory = account.make_directory("defective")
    image = directory / "image.raw"
    subprocess.run(["cp", "--sparse=always", built[1] / "minimal-test.raw", image], check=True)
    text, kernel = directory / "text", kernel_of(image)
    text.write_text(FSTAB)
    debugfs(
        image,
        "rm /etc/fstab", f"write {text} /etc/fstab",
        "rm /etc/machine-id", f"write {text} /etc/machine-id",
        f"rm /boot/{kernel}",
        f"write {text} /usr/bin/rootshell", "sif /usr/bin/rootshell mode 0104755",
        f"write {text} /etc/open", "sif /etc/open mode 0100666",
        "freeb 500 10",
    )  # fmt: skip
    with image.open("r+b") as disk:
        disk.seek(-512, os.SEEK_END)
        disk.write(bytes(512))
    os.chown(image, account.uid, account.gid)
    before = sha256(image)
    outcome = account.run("inspect", "--verify", image, "--json", "--accel", "tcg")
    assert outcome.status == 4, outcome.stderr
    findings = outcome.json()["verification"]["findings"]
    assert {(finding["code"], finding["severity"]) for finding in findings} == {
        ("gpt-backup-broken", "error"),
        ("file-system-broken", "error"),
        ("boot-menu-file-missing", "error"),
        ("fstab-device-missing", "error"),
        ("machine-id-set", "error"),
        ("setuid", "warning"),
        ("world-writable", "warning"),
    }
    assert {f["place"] for f in findings} >= {"/usr/bin/rootshell", "/etc/open", "/etc/fstab:1"}
    assert outcome.json()["system"]["hostname"] == "minimal-test", "it has the other facts, too"
    assert sha256(image) == before
    assert leftovers(account, directory) == []


def test_foreign_disks_are_named_for_their_contents(account: Account) -> None:
    """A disk of 4096-byte sectors with a system is read; a LUKS container is named by both."""
    directory = account.make_directory("foreign")
    large = samples.write_large_sectors(directory / "large.raw")
    tree = directory / "tree"
    for name, text in {"etc/hostname": "large\n", "usr/bin/init": "x"}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    argv = ["/sbin/mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree]
    argv += ["-E", f"offset={2 * MIB}", large, "5M"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    container = samples.write("crypto_LUKS", directory / "container.raw")
    for path in (large, container):
        os.chown(path, account.uid, account.gid)
    outcome = account.run("inspect", "--verify", large, "--json", "--accel", "tcg")
    assert outcome.status == 4, outcome.stderr
    found = outcome.json()
    assert (found["sector-size"], found["system"]["hostname"]) == (4096, "large")
    assert {f["code"] for f in found["verification"]["findings"]} == {
        "boot-loader-missing",
        "gpt-sector-size",
    }
    outcome = account.run("boot-test", container)
    assert outcome.status == 4
    assert "the whole image is a LUKS container (encrypted)" in outcome.stdout


def test_a_build_with_an_error_in_its_image_publishes_nothing(
    account: Account, tiny_base: Path
) -> None:
    output = account.make_directory("no-init")
    stage = "  - type: files\n    files:\n      - path: /etc/kernel/cmdline\n        content: "
    text = recipe_text("no-init", f"tar:{tiny_base}")
    text = text.replace("  - type: qemu", f"{stage}init=/none\n  - type: qemu")
    recipe = account.write(account.directory / "no-init.yml", text)
    outcome = account.run("build", recipe, "--output", output, "--json")
    assert outcome.status == 4
    assert "[init-missing]" in outcome.stderr
    result = outcome.json()
    assert (result["status"], result["boot"]) == ("defective", [])
    assert [finding["code"] for finding in result["verification"]["findings"]] == ["init-missing"]
    assert os.listdir(output) == ["no-init.failed"]
    assert (output / "no-init.failed/no-init.raw").exists()

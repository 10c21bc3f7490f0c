"""Builds the demo recipe end to end, as an ordinary user that can gain no privileges."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from .conftest import CONFINE, Account, Outcome, leftovers, user_qemus
from .test_boot_loaders import PHASES, phases

MIB = 1 << 20
Built = tuple[Outcome, Path]


def debugfs(image: Path, command: str) -> str:
    """The output of debugfs(8) for the image's ext4 partition, which starts at 1 MiB."""
    argv = ["/sbin/debugfs", "-R", command, f"{image}?offset={MIB}"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout


def test_the_confinement_holds(account: Account) -> None:
    """Without the confinement, the other tests here would prove nothing."""
    confined = [sys.executable, str(CONFINE), str(account.uid), str(account.gid)]
    for command in (["unshare", "--user", "true"], ["unshare", "--mount", "true"]):
        assert subprocess.run([*confined, *command], capture_output=True).returncode != 0


def test_everything_is_published(built: Built) -> None:
    outcome, output = built
    ends = ("raw", "qcow2", "report.html", "result.json", "log", "console.log", "evidence")
    assert sorted(os.listdir(output)) == sorted(
        ["SHA256SUMS", *(f"minimal-test.{e}" for e in ends)]
    )
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=output, capture_output=True)
    assert sums.returncode == 0, sums.stderr
    raw, qcow2 = output / "minimal-test.raw", output / "minimal-test.qcow2"
    same = subprocess.run(["qemu-img", "compare", raw, qcow2], capture_output=True, text=True)
    assert same.returncode == 0, same.stdout
    assert raw.stat().st_blocks * 512 < min(600 * MIB, raw.stat().st_size), "the copy is sparse"
    assert outcome.stderr.count("stage 5/5 qemu") == 2


def test_the_result_tells_everything(built: Built) -> None:
    outcome, output = built
    result = json.loads((output / "minimal-test.result.json").read_text())
    assert result == outcome.json()
    assert result["status"] == "passed"
    assert [s["type"] for s in result["stages"]] == ["apt", "locale", "timezone", "users", "qemu"]
    assert all(s["status"] == "done" and s["seconds"] >= 0 for s in result["stages"])
    apt = result["stages"][0]
    assert 0 < apt["parts"]["Setting up locales"] < apt["parts"]["apt-get"] < apt["seconds"]
    assert result["base_digest"].startswith("sha256:")
    for artifact in result["artifacts"]:
        data = (output / artifact["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == artifact["sha256"]
    assert result["controller_peak_rss_bytes"] < 100 * MIB
    if result["helper"]["accelerator"] == "tcg":
        assert "security boundary" in result["helper"]["security_note"]
    assert result["helper"]["landlock"] >= 2


def test_extlinux_starts_from_bios_and_shows_every_phase(built: Built) -> None:
    (boot,) = built[0].json()["boot"]
    assert (boot["firmware"], boot["status"]) == ("bios", "passed")
    assert phases(boot) == PHASES


def test_the_running_system_is_what_the_recipe_says(built: Built) -> None:
    facts = built[0].json()["boot"][0]["facts"]
    assert facts["state"] == "running"
    assert facts["hostname"] == "minimal-test"
    assert facts["timezone"].endswith("/Europe/Berlin")
    assert facts["language"] == "en_US.UTF-8"
    assert "ext4" in facts["root-device"]


def test_the_image_can_be_inspected(account: Account, built: Built) -> None:
    raw = built[1] / "minimal-test.raw"
    before = (raw.stat().st_mtime_ns, hashlib.sha256(raw.read_bytes()).hexdigest())
    found = account.run("inspect", raw, "--json", "--accel", "tcg").json()
    assert (found["table"], found["boot-loaders"]) == ("gpt", ["syslinux (BIOS)"])
    (partition,) = found["partitions"]
    assert partition["file-system"]["kind"] == "ext4"
    system = found["system"]
    assert {"key": "ID", "value": "debian"} in system["os-release"]
    assert "linux-image-cloud-amd64" in {package["name"] for package in system["packages"]}
    assert [(a["name"], a["password"]) for a in system["accounts"]] == [
        ("root", "locked"), ("admin", "locked"),
    ]  # fmt: skip
    assert len(system["kernels"]) == 1
    assert before == (raw.stat().st_mtime_ns, hashlib.sha256(raw.read_bytes()).hexdigest())


def test_nothing_of_the_build_is_left_in_the_image(built: Built) -> None:
    raw = built[1] / "minimal-test.raw"
    assert debugfs(raw, "cat /etc/machine-id") == ""
    assert debugfs(raw, "stat /etc/machine-id").startswith("Inode:")
    listing = debugfs(raw, "ls -p /etc")
    assert "/os-release/" in listing, "debugfs reads the image"
    assert "resolv.conf" not in listing
    assert "particle-os" not in listing
    assert "policy-rc.d" not in debugfs(raw, "ls -p /usr/sbin")
    assert "update-initramfs.particle-os" not in debugfs(raw, "ls -p /usr/sbin")
    assert "particle-os" not in debugfs(raw, "ls -p /etc/initramfs-tools/conf.d")
    for directory in (
        "/tmp",
        "/run",
        "/root/.ssh",
        "/var/lib/apt/lists",
        "/var/cache/apt/archives",
    ):
        names = {
            line.split("/")[5] for line in debugfs(raw, f"ls -p {directory}").split("\n") if line
        }
        assert names <= {".", ".."}, directory
    assert "random-seed" not in debugfs(raw, "ls -p /var/lib/systemd")
    key = b"BEGIN OPENSSH PRIVATE KEY"
    with raw.open("rb") as file:
        while chunk := file.read(64 * MIB):
            assert key not in chunk


def test_nothing_is_left_on_the_host(account: Account, built: Built) -> None:
    assert leftovers(account, built[1]) == []
    assert user_qemus(account) == []
    assert list((account.directory / "home").iterdir()) == [], "nothing in the home directory"


def test_the_helper_is_private_and_read_only_work(account: Account, built: Built) -> None:
    assert account.cache.stat().st_mode & 0o077 == 0
    helpers = [p for p in (account.cache / "helpers").iterdir() if p.is_dir()]
    assert helpers
    for helper in helpers:
        names = sorted(path.name for path in helper.iterdir())
        assert names == ["SHA256SUMS", "initrd", "kernel", "root.squashfs"]
    for state in (account.cache / "warm").iterdir():
        assert state.stat().st_mode & 0o077 == 0, "only the owner may read the saved memory of a VM"

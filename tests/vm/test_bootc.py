"""A disk that the image's own bootc installs. Here it is a script that copies the system."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import Account

# The files that the script leaves in the root of the disk.
ARGUMENTS, DISKS, SOURCE = "bootc-arguments", "bootc-disks", "bootc-source"
STAND_IN = f"""\
#!/bin/sh
set -eu
for last; do :; done
printf '%s\\n' "$@" >"$last/{ARGUMENTS}"
mount -t tmpfs tmpfs /mnt
umount /mnt
for node in /dev/vd?; do
    if [ "$(head -c 8 "$node" | wc -c)" = 8 ]; then basename "$node"; fi
done 2>/dev/null >"$last/{DISKS}"
tar -tf /run/particle-os/bootc/source/image.oci.tar >"$last/{SOURCE}"
cp -a --one-file-system /bin /etc /lib /lib64 /sbin /usr "$last"
mkdir -p "$last/dev" "$last/proc" "$last/run" "$last/sys" "$last/tmp" "$last/var"
"""
STAGES = [
    {"type": "apt", "packages": ["linux-image-cloud-amd64", "systemd-sysv"]},
    {
        "type": "files",
        "files": [{"path": "/usr/bin/bootc", "mode": "0755", "content": STAND_IN}],
    },
    {
        "type": "qemu",
        "installer": "bootc",
        "boot-loader": "grub",
        "bootc": {"target-imgref": "registry.example.org/edge:1", "kargs": ["quiet"]},
    },
]


@pytest.mark.weekly
def test_the_stand_in_fills_the_disk(account: Account) -> None:
    """It may mount, sees the output disk alone, and its source is the system as an image."""
    recipe = account.write(
        account.directory / "bootc.yml", json.dumps({"name": "bootc", "stages": STAGES})
    )
    output = account.make_directory("bootc")
    arguments = ("--output", output, "--no-boot-test", "--json", "--progress", "plain")
    outcome = account.run("build", recipe, *arguments)
    found = output if outcome.status == 0 else output / "bootc.failed"
    assert outcome.json()["artifacts"], outcome.stderr
    assert any("experimental" in note for note in outcome.json()["notes"])
    disk = found / "bootc.raw"
    inspected = account.run("inspect", disk, "--json")
    assert inspected.status == 0, inspected.stderr
    (root,) = [p for p in inspected.json()["partitions"] if p["name"] == "root"]
    assert root["file-system"]["kind"] == "ext4"
    words = read(disk, root["start"], ARGUMENTS)
    assert words[:2] == ["install", "to-filesystem"]
    assert "--karg=quiet" in words
    assert words[-1] == "/run/particle-os/bootc/root"
    assert len(read(disk, root["start"], DISKS)) == 1
    assert read(disk, root["start"], SOURCE)[-1] == "index.json"


def read(disk: Path, start: int, name: str) -> list[str]:
    """The lines of a file in the root of a file system that begins at a byte of the disk."""
    argv = ["/sbin/debugfs", "-R", f"cat /{name}", f"{disk}?offset={start}"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()

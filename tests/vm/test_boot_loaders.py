"""Builds and boots a subset of docs/matrix.md.

Together with the demo image (extlinux, GPT, ext4) the tests cover each boot loader, firmware,
partition table and file system.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.decode import encode
from particle_agent.stages.output.qemu import Qemu

from tests.guest.disk.test_needs import combinations, label

from .breaking import mtools
from .conftest import Account, Outcome, example, leftovers

Built = tuple[Outcome, Path]
MIB = 1 << 20
SUITE = "trixie"
OPTIONS = ("boot-loader", "unified-kernel-image", "partition-table", "file-system", "grow")
PHASES = ["firmware", "boot loader", "kernel", "initramfs", "init", "answer", "checks"]
# What each image has beside the packages of the demo recipe, which has the kernel.
GRUB = "btrfs-progs, grub-efi-amd64-bin, grub-pc-bin, grub2-common"
SYSTEMD_BOOT = "systemd-boot, systemd-boot-efi"
SIGNED = "shim-signed, systemd-boot-efi-amd64-signed"
UNITS = """\
  - type: files
    files:
      - path: /etc/systemd/system/updated.service
        content: |
          [Unit]
          Description=The menu can be made anew
          ConditionPathExists=/boot/grub/grub.cfg
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecStart=/bin/sh -c '[ -d /sys/firmware/efi ] || update-grub'
          ExecStart=/bin/sh -c 'grep "linux.*root=UUID=$(findmnt -n -o UUID /).*console=ttyS0" /boot/grub/grub.cfg'
          [Install]
          WantedBy=multi-user.target
      - path: /etc/systemd/system/grown.service
        content: |
          [Unit]
          Description=The root file system has more than 4 GB
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecCondition=/bin/sh -c 'test "$(stat -f -c "%%b" /)" -gt 1000000'
          ExecStart=/bin/true
          [Install]
          WantedBy=multi-user.target
      - path: /etc/systemd/system/swapped.service
        content: |
          [Unit]
          Description=There is swap space of 64 MiB
          After=swap.target
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecCondition=/bin/grep -q '^/swapfile.*6553[0-9]' /proc/swaps
          ExecStart=/bin/true
          [Install]
          WantedBy=multi-user.target
  - type: services
    enable: [updated.service, grown.service, swapped.service]
"""  # noqa: E501


def phases(boot: dict[str, Any]) -> list[str]:
    """The phases of a boot in their order, without the prompt, which the answer may precede."""
    return [name for name in boot["phases"] if name != "login prompt"]


def build(
    account: Account, name: str, packages: str, disk: str, units: str = ""
) -> tuple[Outcome, Path]:
    """Builds an image whose last stage has the options `disk`; its boot test waits for `units`."""
    apt = f"  - type: apt\n    packages: [{packages}]\n"
    minimal = example(account, "minimal-test").read_text()
    stages = minimal[minimal.index("stages:\n") : minimal.index("  - type: locale\n")]
    checks = "".join(f"    - unit: {unit}\n" for unit in units.split())
    text = f"name: {name}\n{stages}{apt}{UNITS}  - type: qemu\n"
    text += "".join(f"    {line}\n" for line in disk.split("; "))
    text += f"boot-test:\n  checks:\n{checks}" if checks else ""
    output = account.make_directory(name)
    recipe = account.write(account.directory / f"{name}.yml", text)
    outcome = account.run("build", recipe, "--output", output, "--json", "--progress", "plain")
    assert outcome.status == 0, outcome.stderr
    assert leftovers(account, output) == []
    return outcome, output


@pytest.mark.weekly
def test_one_disk_starts_from_bios_and_from_uefi_and_updates_its_menu(
    account: Account, built: Built
) -> None:
    disk = "boot-loader: grub; partition-table: msdos; file-system: btrfs; swap: 64M"
    outcome, _ = build(account, "grub", GRUB, disk, "updated.service swapped.service")
    boots = outcome.json()["boot"]
    assert [(boot["firmware"], boot["status"]) for boot in boots] == [
        ("bios", "passed"),
        ("uefi", "passed"),
    ]
    assert [phases(boot) for boot in boots] == [PHASES, PHASES]
    assert all("btrfs" in boot["facts"]["root-device"] for boot in boots)


@pytest.mark.weekly
@pytest.mark.parametrize("stage", list(combinations()), ids=label)
def test_the_packages_that_validation_asks_for_suffice_and_none_is_left_out(
    account: Account, stage: Qemu
) -> None:
    """Builds each combination with its needs alone; without one, no build starts."""
    wanted = (*stage.boot_needs(AMD64), *stage.needs())
    needs = {need.hint.split("'")[1]: need.within(SUITE) for need in wanted}
    packages = list(needs)
    disk = {"type": "qemu", **{o: v for o, v in encode(stage).items() if o in OPTIONS}}
    path = account.directory / "needs.yml"
    for installed in (*([p for p in packages if p != gone] for gone in packages), packages):
        apt = {"type": "apt", "packages": installed}
        text = {"name": "needs", "base-image": f"mmdebstrap:{SUITE}", "stages": [apt, disk]}
        recipe = account.write(path, json.dumps(text))
        output = account.make_directory("needs")
        outcome = account.run("build", recipe, "--output", output, "--no-boot-test")
        whole = all(any(map(need.is_brought_by, installed)) for need in needs.values())
        assert outcome.status == (0 if whole else 2), outcome.stderr
        assert whole or "missing-need" in outcome.stderr


@pytest.fixture(scope="module")
def systemd_boot(account: Account, built: Built) -> Built:
    disk = "boot-loader: systemd-boot; file-system: xfs; grow: true; compress: zstd"
    disk += "; formats: [vmdk, vdi, vhd, raw]"
    packages = f"{SYSTEMD_BOOT}, {SIGNED}, systemd-repart, xfsprogs"
    return build(account, "systemd-boot", packages, disk)


def test_systemd_boot_starts_from_uefi(systemd_boot: Built) -> None:
    (boot,) = systemd_boot[0].json()["boot"]
    assert (boot["firmware"], boot["status"]) == ("uefi", "passed")
    assert phases(boot) == PHASES
    assert "xfs" in boot["facts"]["root-device"]


@pytest.mark.weekly
def test_a_unified_kernel_image_starts_from_uefi(account: Account, built: Built) -> None:
    disk = "boot-loader: systemd-boot; unified-kernel-image: true"
    outcome, output = build(account, "unified", f"{SYSTEMD_BOOT}, systemd-ukify", disk)
    (boot,) = outcome.json()["boot"]
    assert (boot["firmware"], boot["status"]) == ("uefi", "passed")
    assert phases(boot) == PHASES
    files = mtools(output / "unified.raw", "mdir", "-/", "-b")
    assert re.search(r"/EFI/Linux/\S+\.efi", files)
    assert "/loader/entries/" not in files


def test_a_grown_disk_has_a_grown_file_system(account: Account, systemd_boot: Built) -> None:
    """The published image is compressed and in SHA256SUMS, and boots under Secure Boot."""
    output = systemd_boot[1]
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=output, capture_output=True)
    assert checked.returncode == 0
    image = output / "grown.raw"
    unpack = ["zstd", "-q", "-d", "--sparse", output / "systemd-boot.raw.zst", "-o", image]
    subprocess.run(unpack, check=True)
    os.truncate(image, 6 << 30)
    os.chown(image, account.uid, account.gid)
    arguments = ["boot-test", image, "--firmware", "uefi-secure", "--unit", "grown.service"]
    outcome = account.run(*arguments, "--json")
    assert outcome.status == 0, outcome.stdout
    assert outcome.json()["firmware"] == "uefi-secure"
    image.unlink()


def test_every_format_holds_the_disk_and_the_first_one_boots(
    account: Account, systemd_boot: Built
) -> None:
    outcome, output = systemd_boot
    artifacts = {each["format"]: each for each in outcome.json()["artifacts"]}
    assert list(artifacts) == ["vmdk", "vdi", "vhd", "raw"]
    (size,) = {each["virtual_bytes"] for each in artifacts.values()}
    for name, driver in (("vmdk", "vmdk"), ("vdi", "vdi"), ("vhd", "vpc")):
        path = output / artifacts[name]["path"]
        info = ["qemu-img", "info", "-f", driver, "--output=json", path]
        told = subprocess.run(info, check=True, capture_output=True, text=True).stdout
        assert f'"virtual-size": {size}' in told
    vmdk = output / artifacts["vmdk"]["path"]
    found = account.run("inspect", vmdk, "--format", "vmdk", "--json").json()
    assert (found["table"], found["size"]) == ("gpt", size)
    assert found["system"]["kernels"]

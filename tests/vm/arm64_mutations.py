"""Ways to break a good image of arm64, each with the verdict that the broken image must get.

The image has systemd-boot, a GPT, and an ext4 root in the last partition.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .breaking import (
    ENTRY,
    MIB,
    appended,
    esp_path,
    esp_put,
    esp_removed,
    mtools,
    overwrite,
    partition,
    removed,
    unit,
)
from .mutations import CRASH_LOOP, FAIL, HANG, MUTATIONS, UEFI_KERNEL, Mutation, full_root

LOADER = "/EFI/BOOT/BOOTAA64.EFI"
CONSOLE = "console=ttyAMA0,115200"
# The machine of a program for UEFI: its place in the header (PE format), and amd64's number.
MACHINE_PLACE, OF_AMD64 = 4, b"\x64\x86"


def entry(pattern: str, replacement: str) -> Callable[[Path], None]:
    """Replaces `pattern` in the entry of the menu; the pattern must match."""

    def change(image: Path) -> None:
        text = mtools(image, "mtype", f"::{esp_path(image, ENTRY)}")
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count, f"{pattern} is not in the entry"
        esp_put(ENTRY, text.encode())(image)

    return change


def word(added: str) -> Callable[[Path], None]:
    return entry(r"^(options .*)$", rf"\1 {added}")


def silent(*words: str) -> Callable[[Path], None]:
    """Replaces the serial console in the kernel's arguments by `words`."""
    return entry(re.escape(CONSOLE), " ".join(words))


def for_another_machine(image: Path) -> None:
    """Makes the boot loader a program for machines of amd64."""
    local = image.with_name("loader")
    mtools(image, "mcopy", "-n", f"::{LOADER}", local)
    data = bytearray(local.read_bytes())
    local.unlink()
    place = int.from_bytes(data[0x3C:0x40], "little") + MACHINE_PLACE
    data[place : place + 2] = OF_AMD64
    esp_put(LOADER, bytes(data))(image)


def wrong_root(image: Path) -> None:
    entry(r"root=UUID=\S+", "root=UUID=00000000-0000-4000-8000-000000000000 rootdelay=1")(image)


GOOD = Mutation(
    "passed",
    lambda image: None,
    base="systemd-boot-arm64",
    firmware="uefi",
    architecture="arm64",
)


def broken(
    status: str,
    change: Callable[[Path], object],
    says: str = "",
    *,
    early: bool = False,
    timeout: int | None = None,
) -> Mutation:
    return replace(GOOD, status=status, change=change, says=says, early=early, timeout=timeout)


ARM64_MUTATIONS: dict[str, Mutation] = {
    "arm64-good": GOOD,
    # Failures of the firmware and the boot loader.
    "arm64-no-disk-image": broken(
        "no-bootable-device", lambda image: image.write_text("not a disk\n" * 1000), early=True
    ),
    "arm64-no-loader": broken("no-bootable-device", esp_removed(LOADER), early=True),
    "arm64-no-system-partition": broken(
        "no-bootable-device",
        lambda image: overwrite(image, partition(image, 0), bytes(MIB)),
        early=True,
    ),
    "arm64-loader-damaged": broken(
        "no-bootable-device", esp_put(LOADER, b"not a program\n" * 1000), early=True
    ),
    "arm64-loader-of-amd64": broken("no-bootable-device", for_another_machine, early=True),
    # Failures between the boot loader and the kernel.
    "arm64-kernel-missing": broken("kernel-not-started", esp_removed(UEFI_KERNEL), early=True),
    "arm64-kernel-damaged": broken(
        "kernel-not-started", esp_put(UEFI_KERNEL, b"not a kernel\n" * 100000), early=True
    ),
    "arm64-no-entry": broken("kernel-not-started", esp_removed(ENTRY), early=True),
    "arm64-menu-waits": broken(
        "kernel-not-started",
        esp_put("/loader/loader.conf", b"timeout menu-force\n"),
        says="key",
        early=True,
    ),
    # Failures of the kernel and the initramfs.
    "arm64-no-initramfs": broken("root-not-found", entry(r"^initrd .*\n", "")),
    "arm64-wrong-root": broken("root-not-found", wrong_root),
    "arm64-init-missing": broken("init-missing", removed("/usr/sbin/init", "/sbin/init")),
    "arm64-init-ends": broken("kernel-panic", word("init=/bin/true")),
    # The firmware's table SPCR names the serial port, so the kernel speaks there unasked.
    "arm64-panic-unasked": broken(
        "kernel-panic", silent("init=/bin/true"), says="the console says"
    ),
    # Failures of systemd and its units.
    "arm64-emergency": broken("emergency-mode", word("emergency")),
    "arm64-fstab-names-missing-disk": broken(
        "emergency-mode",
        appended("/etc/fstab", "UUID=dead-beef /data ext4 x-systemd.device-timeout=3s 0 2\n"),
    ),
    "arm64-failing-unit": broken("units-failed", unit("bad.service", FAIL), says="bad.service"),
    "arm64-crash-looping-unit": broken(
        "units-failed", unit("loop.service", CRASH_LOOP), says="crash-looping units: loop.service"
    ),
    "arm64-full-root": broken("units-failed", full_root, says="systemd-random-seed"),
    "arm64-hanging-unit": broken(
        "timed-out", unit("hang.service", HANG), says="answer", timeout=90
    ),
    "arm64-powers-off": broken("powered-off-early", word("systemd.unit=poweroff.target")),
    "arm64-restarts": broken("reboot-loop", word("systemd.unit=reboot.target")),
    # Unusual images that are good.
    "arm64-silent-console": broken("passed", silent()),
}
ALL_MUTATIONS = MUTATIONS | ARM64_MUTATIONS

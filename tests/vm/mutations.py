"""Ways to break a good image, each with the verdict that the broken image must get.

The images have a GPT and an ext4 root in the last partition. One image has extlinux for BIOS (and
no other partition), one has GRUB, and one has systemd-boot. debugfs(8) changes files of the root,
mtools change files of the EFI system partition, and Python writes sectors; nothing is mounted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .breaking import (
    BLOCK,
    COM1,
    COM2,
    CONF,
    ENTRY,
    GRUB,
    MIB,
    OLD_NONCE,
    UNITS,
    appended,
    boot_code,
    configuration,
    debugfs,
    esp_put,
    esp_removed,
    kernel_argument,
    overwrite,
    partition,
    put,
    read,
    removed,
    say,
    uefi_silent,
    unit,
    zeros,
)


@dataclass(frozen=True)
class Mutation:
    """A way to break an image; `timeout` (seconds) is that of `boot-test` when it must wait."""

    status: str
    change: Callable[[Path], object]
    # The message must contain this text.
    says: str = ""
    # The boot fails before the kernel or soon after, so `make test` can afford this mutation.
    early: bool = False
    timeout: int | None = None
    # The boot loader of the good image, and the firmware that boots the broken one.
    base: Literal["extlinux", "grub", "systemd-boot", "systemd-boot-arm64"] = "extlinux"
    firmware: Literal["bios", "uefi", "uefi-secure"] = "bios"
    architecture: Literal["amd64", "arm64"] = "amd64"


HALT = b"\xf4\xeb\xfd"
RESET = b"\xba\xf9\x0c\xb0\x06\xee" + HALT  # out 0xcf9, 6: the chipset's reset register
POWER_OFF = b"\xba\x04\x06\xb8\x00\x20\xef" + HALT  # out 0x604, SLP_EN: ACPI's S5 of QEMU's q35


def liar() -> bytes:
    """Code that prints the console text of a good system, and an old answer on the probe's port."""
    lines = [f"PARTICLE-OS-PROBE {OLD_NONCE}", "state cnVubmluZw=="]
    answer = "\n".join([*lines, f"PARTICLE-OS-PROBE-END {OLD_NONCE}", ""])
    first = say(COM2, answer[:90].encode(), 0)
    second = say(COM2, answer[90:].encode(), len(first))
    words = b"Linux version 6.12\r\nWelcome to Debian\r\ndebian login: "
    third = say(COM1, words, len(first) + len(second))
    return first + second + third + HALT


def clumsy_terminal() -> bytes:
    text = b"\x1b[2J\x1b]0;title\x07\x1b[31mred\x9b1mKernel panic\x00"
    return say(COM1, text.rstrip(b"\0"), 0) + HALT


def wrong_root(image: Path) -> None:
    configuration(r"root=UUID=\S+", "root=UUID=00000000-0000-4000-8000-000000000000 rootdelay=1")(
        image
    )


def kernel(image: Path) -> str:
    """The path of the newest kernel."""
    names = re.findall(r"/(vmlinuz-[^/]+)/", debugfs(image, "ls -p /boot", write=False))
    return f"/boot/{max(names)}"


def read_only_root(image: Path) -> None:
    put(image, "/etc/fstab", read(image, "/etc/fstab").replace("errors=remount-ro", "ro"))


def full_root(image: Path) -> None:
    """Fills the free space of the file system with one file."""
    free = int(re.findall(r"Free blocks: +(\d+)", debugfs(image, "stats", write=False))[0])
    filler = image.with_name("filler")
    # Blocks of zeros would become a hole; 16 blocks stay free for the map of the file's blocks.
    filler.write_bytes(b"x" * (free - 16) * BLOCK)
    debugfs(image, f"write {filler} /filler")
    filler.unlink()


def truncated(image: Path) -> None:
    """Cuts off the unused end of the disk, so that the file system reaches beyond its disk."""
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size - 16 * MIB)


def flooding(image: Path) -> None:
    """Adds a unit that writes 1 GB to the console, without a getty that would hang up on it."""
    debugfs(image, f"symlink {UNITS}/serial-getty@ttyS0.service /dev/null")
    unit("flood.service", FLOOD)(image)


FAIL = "[Service]\nExecStart=/bin/sh -c 'echo it went wrong; exit 7'\n"
# This stays below systemd's limit of 5 starts within 10 s, so systemd never gives up.
CRASH_LOOP = (
    "[Service]\nExecStart=/bin/sh -c 'echo it went wrong; exit 7'\nRestart=always\nRestartSec=20\n"
)
HANG = "[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n"
LIAR = (
    "[Unit]\nDefaultDependencies=no\nAfter=systemd-journald.socket\n[Service]\nType=oneshot\n"
    "ExecStart=/bin/sh -c \"echo 'Kernel panic - not syncing: only a text' >/dev/ttyS0; "
    "echo 'You are in emergency mode' >/dev/ttyS0; "
    f"printf 'PARTICLE-OS-PROBE {OLD_NONCE}\\\\nPARTICLE-OS-PROBE-END {OLD_NONCE}\\\\n' "
    '>/dev/ttyS1"\n'
)
FLOOD = "[Service]\nExecStart=/bin/sh -c 'yes flood | head -c 1G >/dev/ttyS0'\nNice=19\n"
# The files of systemd-boot.
LOADER = "/EFI/BOOT/BOOTX64.EFI"
UEFI_KERNEL = "/debian/[^/]+/linux"
MUTATIONS: dict[str, Mutation] = {
    "good": Mutation("passed", lambda image: None),
    # Failures of the firmware and the boot loader.
    "zeroed-boot-record": Mutation(
        "no-bootable-device", lambda image: overwrite(image, 0, bytes(512)), early=True
    ),
    "no-disk-image": Mutation(
        "no-bootable-device", lambda image: image.write_text("not a disk\n" * 1000), early=True
    ),
    "zeroed-partition-boot-record": Mutation(
        "boot-loader-failed", lambda image: overwrite(image, MIB, bytes(512)), early=True
    ),
    "boot-code-hangs": Mutation("boot-loader-failed", boot_code(HALT), early=True),
    "boot-loader-damaged": Mutation(
        "boot-loader-failed",
        lambda image: zeros(image, "/boot/extlinux/ldlinux.sys", 1, 99),
        early=True,
    ),
    # extlinux prints its banner, finds no file system, and prints nothing more.
    "corrupt-superblock": Mutation(
        "kernel-not-started", lambda image: overwrite(image, MIB + 1024, bytes(1024)), early=True
    ),
    "boot-code-resets": Mutation("reboot-loop", boot_code(RESET), early=True),
    "boot-code-powers-off": Mutation("powered-off-early", boot_code(POWER_OFF), early=True),
    "fake-login-and-old-nonce": Mutation(
        "timed-out", boot_code(liar()), says="login prompt", early=True, timeout=8
    ),
    "boot-code-floods": Mutation(
        "timed-out", boot_code(say(COM1, b"flood\r\n", 0, forever=True)), early=True, timeout=8
    ),
    "escape-sequences": Mutation("boot-loader-failed", boot_code(clumsy_terminal()), early=True),
    # Failures between the boot loader and the kernel.
    "kernel-missing": Mutation("kernel-not-started", removed("/vmlinuz"), early=True),
    "kernel-damaged": Mutation(
        "kernel-not-started",
        lambda image: zeros(image, kernel(image), 0, 1),
        early=True,
    ),
    "menu-waits": Mutation(
        "kernel-not-started",
        configuration(r"^PROMPT 0\nTIMEOUT 10", "PROMPT 1\nTIMEOUT 0"),
        says="key",
        early=True,
    ),
    "no-configuration": Mutation("kernel-not-started", removed(CONF), early=True),
    # Failures of the kernel and the initramfs.
    "no-initramfs": Mutation("root-not-found", configuration(r"^ *INITRD .*\n", ""), early=True),
    "wrong-root": Mutation("root-not-found", wrong_root),
    "init-missing": Mutation("init-missing", removed("/usr/sbin/init", "/sbin/init")),
    "init-ends": Mutation("kernel-panic", kernel_argument("init=/bin/true")),
    # Failures of systemd and its units.
    "emergency": Mutation("emergency-mode", kernel_argument("emergency")),
    "rescue": Mutation("emergency-mode", kernel_argument("systemd.unit=rescue.target")),
    "fstab-names-missing-disk": Mutation(
        "emergency-mode",
        appended("/etc/fstab", "UUID=dead-beef /data ext4 x-systemd.device-timeout=3s 0 2\n"),
    ),
    "failing-unit": Mutation("units-failed", unit("bad.service", FAIL), says="bad.service"),
    "crash-looping-unit": Mutation(
        "units-failed", unit("loop.service", CRASH_LOOP), says="crash-looping units: loop.service"
    ),
    # The first boot writes a machine-id and a random seed.
    "full-root": Mutation("units-failed", full_root, says="systemd-random-seed"),
    "hanging-unit": Mutation("timed-out", unit("hang.service", HANG), says="answer", timeout=90),
    "powers-off": Mutation("powered-off-early", kernel_argument("systemd.unit=poweroff.target")),
    "restarts": Mutation("reboot-loop", kernel_argument("systemd.unit=reboot.target")),
    # Unusual images that are good.
    "silent-console": Mutation("passed", configuration(r"^SERIAL .*\n|console=ttyS0,115200", "")),
    "masked-getty": Mutation(
        "passed",
        lambda image: debugfs(
            image,
            f"symlink {UNITS}/serial-getty@ttyS0.service /dev/null",
            f"symlink {UNITS}/getty@tty1.service /dev/null",
        ),
    ),
    "lying-service": Mutation("passed", unit("liar.service", LIAR, target="sysinit.target")),
    "flooding-service": Mutation("passed", flooding),
    "truncated": Mutation("root-not-found", truncated),
    "read-only-root": Mutation("passed", read_only_root),
    # UEFI and its boot loaders.
    "uefi-good": Mutation("passed", lambda image: None, base="systemd-boot", firmware="uefi"),
    "uefi-no-loader": Mutation(
        "no-bootable-device", esp_removed(LOADER), early=True, base="systemd-boot", firmware="uefi"
    ),
    "uefi-no-system-partition": Mutation(
        "no-bootable-device",
        lambda image: overwrite(image, partition(image, 0), bytes(MIB)),
        early=True,
        base="systemd-boot",
        firmware="uefi",
    ),
    "uefi-loader-damaged": Mutation(
        "no-bootable-device",
        esp_put(LOADER, b"not a program\n" * 1000),
        early=True,
        base="systemd-boot",
        firmware="uefi",
    ),
    "uefi-loader-damaged-secure": Mutation(
        "no-bootable-device",
        esp_put(LOADER, b"not a program\n" * 1000),
        early=True,
        base="systemd-boot",
        firmware="uefi-secure",
    ),
    # The package's loader is a valid program without a signature.
    "uefi-unsigned": Mutation(
        "boot-loader-failed",
        lambda image: None,
        early=True,
        base="systemd-boot",
        firmware="uefi-secure",
    ),
    "uefi-kernel-missing": Mutation(
        "kernel-not-started",
        esp_removed(UEFI_KERNEL),
        early=True,
        base="systemd-boot",
        firmware="uefi",
    ),
    "uefi-kernel-damaged": Mutation(
        "kernel-not-started",
        esp_put(UEFI_KERNEL, b"not a kernel\n" * 100000),
        early=True,
        base="systemd-boot",
        firmware="uefi",
    ),
    "uefi-no-entry": Mutation(
        "kernel-not-started", esp_removed(ENTRY), early=True, base="systemd-boot", firmware="uefi"
    ),
    "uefi-menu-waits": Mutation(
        "kernel-not-started",
        esp_put("/loader/loader.conf", b"timeout menu-force\n"),
        says="key",
        early=True,
        base="systemd-boot",
        firmware="uefi",
    ),
    # Only the screen shows the failure, in graphics mode.
    "uefi-silent-console": Mutation("passed", uefi_silent(), base="systemd-boot", firmware="uefi"),
    "uefi-silent-panic": Mutation(
        "kernel-panic",
        uefi_silent("init=/bin/true"),
        says="the screen says",
        base="systemd-boot",
        firmware="uefi",
    ),
    "uefi-silent-root": Mutation(
        "root-not-found",
        uefi_silent("root=/dev/none", "rootdelay=1"),
        says="the screen says",
        base="systemd-boot",
        firmware="uefi",
    ),
    "uefi-bios-only": Mutation(
        "no-bootable-device", lambda image: None, early=True, firmware="uefi"
    ),
    "grub-kernel-missing": Mutation(
        "kernel-not-started", removed("/vmlinuz"), early=True, base="grub"
    ),
    "grub-no-configuration": Mutation(
        "kernel-not-started", removed("/boot/grub/grub.cfg"), early=True, base="grub"
    ),
    "grub-menu-waits": Mutation(
        "kernel-not-started",
        lambda image: put(image, GRUB, read(image, GRUB).replace("timeout=1", "timeout=-1")),
        says="key",
        early=True,
        base="grub",
    ),
    "grub-root-damaged": Mutation(
        "kernel-not-started",
        lambda image: overwrite(image, partition(image, -1), bytes(MIB)),
        early=True,
        base="grub",
    ),
    "grub-uefi-kernel-missing": Mutation(
        "kernel-not-started", removed("/vmlinuz"), early=True, base="grub", firmware="uefi"
    ),
}

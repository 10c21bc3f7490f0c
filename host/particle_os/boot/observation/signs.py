"""The phases of a booting machine and the signs of its failure, as patterns of its output.

The patterns match messages of SeaBIOS, OVMF, the shim, SYSLINUX, GRUB, systemd-boot, the kernel,
initramfs-tools and systemd. An image can print any of these messages: they explain a missing
answer, and never prove a success.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from particle_os.boot.observation.verdict import BootStatus
from particle_os.errors import printable

# OVMF, and AAVMF for arm64, try their own shell last, which they may not start under Secure Boot.
# The pattern needs the complete name, because a line may have arrived only in part.
OF_A_DISK = rb"\w* \"(?!EFI Internal Shell\")[^\"\r\n]*\""
# The first words of Memtest86+ on the screen, or the words of its loader. The entry of a menu has
# other words before it.
MEMORY_TESTER = rb"(?:\A {0,40}|Loading )(Memtest86\+?)"
PHASES: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    # OVMF sets the console's mode before its first message.
    ("firmware", re.compile(rb"SeaBIOS|BdsDxe: |\x1b\[=3h|UEFI firmware \(version")),
    (
        "boot loader",
        re.compile(
            rb"SYSLINUX|EXTLINUX|Loading /|GNU GRUB|GRUB!|(?m:^boot:)|BdsDxe: starting Boot"
            + OF_A_DISK
        ),
    ),
    # A memory tester runs in place of a kernel.
    # A silent kernel of arm64 is known by the words of its first part, which UEFI prints.
    ("kernel", re.compile(rb"Linux version \d|EFI stub: Booting Linux|" + MEMORY_TESTER)),
    ("initramfs", re.compile(rb"Run /init as init process|Loading, please wait")),
    (
        "init",
        re.compile(
            rb"Welcome to (?!GRUB)[^\r\n]{4}|systemd \d+.* running in system mode|INIT: version"
        ),
    ),
    ("login prompt", re.compile(rb"login:(?:\s|\Z)")),
    # The probe's first line and its facts come on a separate channel, not on the console.
    ("answer", re.compile(rb"(?!)")),
    ("checks", re.compile(rb"(?!)")),
)
# GRUB, systemd-boot and SYSLINUX, about the default entry of a menu.
COUNTDOWN = re.compile(rb"executed automatically in|Boot in \d+ s|Automatic boot in")
# A boot loader that waits for a key: GRUB's menu, and last words, after which a terminal may get
# control sequences.
PROMPT = re.compile(
    rb"select which entry is highlighted|"
    rb"(?:press any key[^\r\n]{0,80}|boot:|grub(?: rescue)?>)(?:\x1b\[[0-9;?]*[A-Za-z]|\s)*\Z",
    re.IGNORECASE,
)
PHASE_NAMES = tuple(name for name, _ in PHASES)
KERNEL, INIT = PHASE_NAMES.index("kernel"), PHASE_NAMES.index("init")
ANSWER = PHASE_NAMES.index("answer")

# The rest of a line up to further words. Without a limit, a long line that begins a message over
# and over would take quadratic time.
REST = rb"[^\r\n]{0,400}"
# The first sign wins where several begin at the same place.
SIGNS: tuple[tuple[BootStatus, re.Pattern[bytes]], ...] = (
    (
        "init-missing",
        re.compile(
            rb"No working init found|Requested init \S+ failed|No init found\. Try passing|"
            rb"Target filesystem doesn't have requested \S+|run-init: "
            + REST
            + rb"(?:/init|systemd)"
        ),
    ),
    (
        "root-not-found",
        re.compile(
            rb"ALERT! +\S+ does not exist|Gave up waiting for (?:the )?root|"
            rb"Failed to mount \S+ as root|VFS: Unable to mount root fs|"
            rb"VFS: Cannot open root device|Dropping to a shell!|\(initramfs\)|"
            # dracut, mkinitcpio, Alpine
            rb"Generating \"/run/initramfs/rdsosreport\.txt\"|Entering emergency mode\. Exit the|"
            rb"ERROR: device '[^'\r\n]+' not found\.|Failed to mount '[^'\r\n]+' on real root|"
            rb"Mounting root: failed"
        ),
    ),
    ("emergency-mode", re.compile(rb"You are in (?:emergency|rescue) mode")),
    ("kernel-panic", re.compile(rb"Kernel panic - not syncing[^\r\n]*")),
    (
        "kernel-not-started",
        re.compile(
            # SYSLINUX
            rb"Loading \S+ ?failed[^\r\n]*|Loading \S+\.\.\. ?failed[^\r\n]*|Booting kernel failed|"
            rb"Could not find kernel|Invalid or corrupt kernel|No DEFAULT or UI|"
            # GRUB
            rb"error: [^`\r\n]{0,200}file `(?=[^'\r\n]{0,200}(?:vmlinuz|linux))[^'\r\n]{0,400}' "
            rb"not found|you need to load the kernel first|"
            rb"error: "
            + REST
            + rb"invalid magic number|error: "
            + REST
            + rb"bad shim signature|Minimal BASH-like line editing|"
            # systemd-boot, the kernel's EFI stub
            rb"No loader found\.[^\r\n]*|Error loading [^\r\n]*|Failed to execute [^\r\n]*|"
            rb"EFI stub: ERROR: [^\r\n]*"
        ),
    ),
    (
        "boot-loader-failed",
        re.compile(
            # Boot sectors of SYSLINUX and others
            rb"Missing OS|Missing operating system|Operating system load error|OS load error|"
            rb"Multiple active partitions|Boot error|Failed to load ldlinux\.c32|"
            rb"ldlinux\.c32: not a COM32R image|"
            # GRUB
            rb"grub rescue>|error: " + REST + rb"unknown filesystem|"
            # the shim
            rb"Verification failed: [^\r\n]*|Something has gone seriously wrong[^\r\n]*|"
            rb"Failed to (?:open|load image) \\?" + REST + rb" (?:-|:) [^\r\n]*|"
            # OVMF, about a program that it may not or cannot start, or that has given up
            rb"BdsDxe: failed to start Boot" + OF_A_DISK + rb"[^\r\n]*|"
            rb"BdsDxe: failed to load Boot" + REST + rb"(?:Access Denied|Security Violation)"
        ),
    ),
    (
        "no-bootable-device",
        re.compile(
            rb"No bootable device|Boot failed: not a bootable disk|"
            rb"BdsDxe: No bootable option or device was found|"
            # OVMF starts its own shell when nothing else boots; its startup.nsh could still boot.
            rb"Shell> "
        ),
    ),
)
# Signs of firmware and boot loaders. Once a kernel runs, their words come from another program.
BEFORE_KERNEL: tuple[BootStatus, ...] = (
    "kernel-not-started",
    "boot-loader-failed",
    "no-bootable-device",
)
# Why no answer came, as the console or the screen says.
REASONS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (
        re.compile(
            rb"Detected virtualization (docker|podman|lxc|lxc-libvirt|systemd-nspawn|openvz|wsl|"
            rb"proot|pouch|rkt|container-other)\."
        ),
        "systemd takes the machine for a container ({})",
    ),
    (
        re.compile(rb"systemd (1\d\d|2[0-4]\d|25[01])[. ][^\r\n]{0,400}running in system mode"),
        "its systemd is {}, and an answer needs 252",
    ),
    (re.compile(rb"INIT: version (\S{1,20}) booting"), "its init is System V's ({})"),
    (re.compile(rb"OpenRC (\d\S{0,20})"), "its init is OpenRC {}"),
    (re.compile(rb"init started: (BusyBox v\S{1,20})"), "its init is that of {}"),
    (re.compile(MEMORY_TESTER), "it is the memory tester {}, which never answers"),
    # systemd-firstboot(1), before it asks.
    (
        re.compile(rb"Please (configure) your system!"),
        "systemd-firstboot waits for a person to {} it: set what it asks for in the image (locale, "
        "time zone, root's password), or boot it with systemd.firstboot=no",
    ),
    # cryptsetup's scripts for an initramfs, systemd, GRUB
    (
        re.compile(
            rb"(?:Please unlock disk|Please enter passphrase for disk|Enter passphrase for) "
            rb"([^\r\n:]{1,60})"
        ),
        "it asks for the passphrase of an encrypted disk ({}), which the test cannot know",
    ),
)
# SeaBIOS prints this on its debug port when it jumps to the code of a disk.
HANDED_OVER = re.compile(rb"Booting from 0000:7c00")
# SeaBIOS prints this on its debug port when only the processor has restarted, in SeaBIOS' copy in
# memory; then SeaBIOS resets the whole machine (src/resume.c: tryReboot).
RESETS_AGAIN = b"Attempting a hard reboot"
# SeaBIOS prints this on its debug port once at each start (debug_banner), but its name twice.
STARTS = b"\nBUILD: "
NO_DEVICE = re.compile(rb"No bootable device")


def reasons_in(text: bytes) -> list[str]:
    """Returns the reasons in `text` why no answer comes."""
    found = ((words, pattern.search(text)) for pattern, words in REASONS)
    return [words.format(printable(m[1].decode("utf-8", "replace"), 40)) for words, m in found if m]


def find_sign(text: bytes, without: Collection[BootStatus] = ()) -> tuple[BootStatus, bytes] | None:
    """Returns the status and the words of the first sign of a failure in `text`.

    `without` names statuses to skip. The message of a kernel panic may name the cause, such as a
    missing init or root; then the status is that cause.
    """
    found = [
        (m.start(), index)
        for index, (status, p) in enumerate(SIGNS)
        if status not in without and (m := p.search(text))
    ]
    if not found:
        return None
    _, index = min(found)
    status, pattern = SIGNS[index]
    match = pattern.search(text)
    assert match is not None
    if status == "kernel-panic":
        for cause, words in SIGNS[:2]:
            if words.search(match.group()):
                return cause, match.group()
    return status, match.group()

"""Tests of the words of failures; most come from consoles and screens of real machines."""

import re

import pytest
from particle_os.boot.observation.signs import PHASE_NAMES, PHASES, find_sign

from ....limited import limited
from ....waiting import HANG_SECONDS

SAID = [
    # SeaBIOS and boot sectors
    ("no-bootable-device", b"Boot failed: not a bootable disk\r\n\r\nNo bootable device.\r\n"),
    ("boot-loader-failed", b"Booting from Hard Disk...\r\nMissing operating system.\r\n"),
    ("boot-loader-failed", b"Failed to load ldlinux.c32\nBoot failed: please change disks\n"),
    (
        "boot-loader-failed",
        b"Booting from Hard Disk...\r\nMultiple active partitions\r\nBooting from Floppy...\r\n"
        b"Boot failed: could not read the boot disk\r\n\r\nNo bootable device.\r\n",
    ),
    # SYSLINUX
    ("kernel-not-started", b"Loading /vmlinuz... failed: No such file or directory\r\nboot: "),
    ("kernel-not-started", b"Loading /vmlinuz... Invalid or corrupt kernel image.\r\nboot: "),
    ("kernel-not-started", b"No DEFAULT or UI configuration directive found!\r\nboot: "),
    # GRUB
    ("boot-loader-failed", b"error: unknown filesystem.\r\nEntering rescue mode...\r\n"),
    (
        "kernel-not-started",
        b"error: file `/boot/vmlinuz-6.1' not found.\r\nerror: you need to load the kernel first.",
    ),
    ("kernel-not-started", b"error: ../../grub-core/fs/fshelp.c:257:file `/vmlinuz' not found.\r"),
    (
        "kernel-not-started",
        b"error: ../../grub-core/loader/i386/efi/linux.c:258:you need to load the kernel first.\r",
    ),
    ("kernel-not-started", b"error: ../../grub-core/kern/efi/sb.c:182:bad shim signature.\r\n"),
    # systemd-boot
    ("kernel-not-started", b"Error loading \\debian\\linux: Not Found\r\n"),
    # the shim and OVMF
    ("boot-loader-failed", b"Verification failed: (0x1A) Security Violation\r\n"),
    ("boot-loader-failed", b"Failed to open \\EFI\\BOOT\\grubx64.efi - Not Found\r\n"),
    (
        "boot-loader-failed",
        b'BdsDxe: failed to load Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x4,0x0): '
        b"Access Denied\r\nBdsDxe: No bootable option or device was found.\r\n",
    ),
    (
        "no-bootable-device",
        b'BdsDxe: failed to load Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x4,0x0): '
        b"Not Found\r\nBdsDxe: No bootable option or device was found.\r\n",
    ),
    (
        "no-bootable-device",
        b'BdsDxe: starting Boot0002 "EFI Internal Shell" from Fv(7CB8BDC9)/FvFile(7C04A583)\r\n'
        b'BdsDxe: failed to start Boot0002 "EFI Internal Shell" from Fv(7CB8BDC9)/FvFile(7C04A583)'
        b": Security Violation\r\nBdsDxe: No bootable option or device was found.\r\n",
    ),
    ("no-bootable-device", b"any other key to continue.\r\n\x1b[33m\x1b[40mShell> \x1b[0m"),
    # the kernel
    (
        "root-not-found",
        b"[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
    ),
    ("init-missing", b"[    2.1] Kernel panic - not syncing: No working init found.  Try passing"),
    ("init-missing", b"[    2.1] Kernel panic - not syncing: Requested init /x failed (error -2)."),
    ("kernel-panic", b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000000"),
    # initramfs-tools
    (
        "root-not-found",
        b"ALERT!  UUID=00000000-0000-4000-8000-000000000000 does not exist.  Dropping to a shell!",
    ),
    (
        "init-missing",
        b"Target filesystem doesn't have requested /sbin/init.\nrun-init: can't execute "
        b"'/sbin/init': No such file or directory\nNo init found. Try passing init= bootarg.\n"
        b"(initramfs) ",
    ),
    # dracut, mkinitcpio, Alpine
    ("root-not-found", b'Generating "/run/initramfs/rdsosreport.txt"\n\nEntering emergency mode.'),
    ("root-not-found", b"ERROR: device 'UUID=x' not found. Skipping fsck.\n"),
    ("root-not-found", b"Mounting root: failed.\n"),
    # systemd
    ("emergency-mode", b"You are in emergency mode. After logging in, type \"journalctl -xb\""),
    ("emergency-mode", b"You are in rescue mode. After logging in, type"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "text"), SAID, ids=lambda x: x if isinstance(x, str) else "")
def test_a_failure_is_known_by_its_words(status, text):
    found = find_sign(b"\x1b[2J before\r\n" + text)
    assert found is not None
    assert found[0] == status


@pytest.mark.parametrize(
    "text",
    [
        b"Booting from Hard Disk...\r\nEXTLINUX 6.04 EDD\r\nLoading /vmlinuz... ok\r\n",
        b"error: file `/boot/grub/fonts/unicode.pf2' not found.\r\n",
        b'BdsDxe: loading Boot0001 "x"\r\nBdsDxe: starting Boot0001 "x"\r\nBoot in 5 s.\r\n',
        b"[    0.0] Kernel command line: panic=10 emergency=0 root=/dev/vda1\r\n",
        b"[  OK  ] Reached target emergency.target\r\nWelcome to Debian GNU/Linux 13 (trixie)!",
    ],
)
def test_what_a_good_boot_says_is_no_sign(text):
    assert find_sign(text) is None


@pytest.mark.timeout(HANG_SECONDS)
def test_long_lines_take_no_long_time():
    """A pattern that rescans the rest of the line at each byte takes hours for this line."""
    text = b"flood " * 200_000
    assert find_sign(text) is None
    assert not any(pattern.search(text) for _, pattern in PHASES)


def test_the_first_sign_counts_and_its_line_is_told():
    text = b"Loading /vmlinuz... failed: No such file or directory\r\nNo bootable device."
    assert find_sign(text) == (
        "kernel-not-started",
        b"Loading /vmlinuz... failed: No such file or directory",
    )


def test_the_shell_of_the_firmware_is_no_boot_loader_however_much_of_its_line_has_come():
    line = b' Boot0002 "EFI Internal Shell" from Fv(7CB8BDC9)/FvFile(7C04A583)'
    started = b"BdsDxe: starting" + line
    failed = b"BdsDxe: failed to start" + line + b": Security Violation"
    for length in range(10, len(failed)):
        text = started[:length]
        assert [name for name, pattern in PHASES if pattern.search(text)] == ["firmware"]
        assert find_sign(failed[:length]) is None


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        ("firmware", b"SeaBIOS (version 1.16.3)"),
        ("firmware", b"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J"),
        ("boot loader", b'BdsDxe: starting Boot0001 "UEFI Misc Device"'),
        ("boot loader", b"EXTLINUX 6.04 EDD Copyright"),
        ("boot loader", b"Welcome to GRUB!"),
        ("kernel", b"[    0.000000] Linux version 6.12.117+deb13-cloud-amd64"),
        ("initramfs", b"Loading, please wait..."),
        ("init", b"Welcome to \x1b[1mDebian GNU/Linux 13 (trixie)\x1b[0m!"),
        ("login prompt", b"minimal-test login: "),
    ],
)
def test_a_phase_is_known_by_its_words(phase, text):
    seen = [name for name, pattern in PHASES if pattern.search(text)]
    assert seen[-1] == phase


def test_a_boot_loader_that_comes_in_pieces_is_no_init():
    text = b"\x1b[0;30;47mWelcome to GRUB!\r\n"
    for end in range(len(text) + 1):
        assert not dict(PHASES)["init"].search(text[:end])


def test_nothing_on_the_console_is_an_answer():
    pattern = dict(PHASES)[PHASE_NAMES[-1]]
    assert not re.search(pattern, b"PARTICLE-OS-PROBE answer")


@pytest.mark.slow
def test_a_line_that_repeats_its_beginning_is_searched_in_bounds():
    beginnings = [
        b"error: ",
        b"error: file `linux",
        b"run-init: ",
        b"Failed to open x ",
        b"BdsDxe: failed to load Boot",
        b'BdsDxe: failed to start Boot1 "',
        b"Requested init ",
        b"ERROR: device '",
    ]
    setup = "from particle_os.boot.observation.signs import find_sign"
    search = f"for words in {beginnings}: find_sign(words * (65536 // len(words)))"
    assert limited(setup, search) == ""

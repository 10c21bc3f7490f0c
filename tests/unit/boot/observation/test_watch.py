"""Tests of Watch against a simulated machine."""

import pytest
from particle_os.boot.observation import watch

from ..played import BOOT, EMERGENCY, SYSTEMD, Played


def test_the_answer_ends_the_wait_and_the_phases_are_timed(observe):
    watched, failure = observe(Played([*SYSTEMD, (12, b"debian login: ")], answers=15))
    assert failure is None
    assert list(watched.phases) == [
        "firmware", "boot loader", "kernel", "initramfs", "init", "login prompt", "answer",
    ]  # fmt: skip
    assert watched.phases["initramfs"] == pytest.approx(6, abs=0.3)


def test_boot_code_that_shows_a_prompt_has_not_stopped(observe):
    """It is no boot loader that waits, and no system: it says nothing more until the end."""
    _, (status, message) = observe(Played([BOOT[0], (0.4, b"Debian 13\r\nx login: ")]))
    assert status == "timed-out"
    assert "last seen: login prompt" in message


def test_words_that_a_boot_loader_places_are_no_sign_of_the_system(observe):
    grub = (0.6, b"Welcome to \x1b[04;11H \x1b[04;12HGRUB!\r\n")
    watched, failure = observe(Played([BOOT[0], grub, *SYSTEMD[2:]], answers=15))
    assert failure is None
    assert watched.phases["boot loader"] == pytest.approx(0.6, abs=0.3)
    assert watched.phases["init"] == pytest.approx(9, abs=0.3)
    at_once = b"".join(text for _, text in [BOOT[0], grub, *SYSTEMD[2:]])
    watched, _ = observe(Played([(1, at_once)], answers=15))
    assert [*watched.phases][:5] == ["firmware", "boot loader", "kernel", "initramfs", "init"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ([*BOOT[:2], (1, b"Loading /vmlinuz... failed: No such file\r\nboot: ")],
         "kernel-not-started"),
        ([*BOOT, (5, b"Kernel panic - not syncing: Attempted to kill init!\r\n")], "kernel-panic"),
        ([*SYSTEMD, (12, b"You are in emergency mode.\r\n")], "emergency-mode"),
    ],
)  # fmt: skip
def test_a_sign_counts_within_ten_seconds(observe, said, status):
    machine = Played(said)
    _, failure = observe(machine)
    assert failure[0] == status
    assert machine.now - said[-1][0] < 10


def test_a_sign_that_is_followed_by_a_later_phase_does_not_count(observe):
    early = (0.7, b"Missing operating system\r\n")
    _, failure = observe(Played([early, *SYSTEMD], answers=15, busy=99))
    assert failure is None


def test_a_sign_does_not_stand_against_an_answer(observe):
    said = [*SYSTEMD, (10, b"Kernel panic - not syncing: only a text\r\n")]
    _, failure = observe(Played(said, answers=14))
    assert failure is None


def test_a_line_that_comes_in_pieces_is_read_whole(observe):
    text = b"Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n"
    pieces = [(3 + i / 1000, bytes([byte])) for i, byte in enumerate(text)]
    _, (status, message) = observe(Played([*BOOT, *pieces]))
    assert status == "root-not-found"
    assert "unknown-block(0,0)" in message


def test_a_boot_loader_that_waits_is_told_from_one_that_reads(observe):
    machine = Played(BOOT[:2])
    _, (status, message) = observe(machine)
    assert (status, machine.now < 11) == ("kernel-not-started", True)
    assert "key" in message
    busy = Played(BOOT[:2], busy=30)
    observe(busy)
    assert busy.now > 30


def test_a_menu_of_pictures_that_counts_down_has_not_stopped(observe):
    machine = Played([*BOOT[:2], (25, b"[ 0.0] Linux version 6.12\r\n")], answers=40)
    machine.picture = lambda now: b"%d" % min(now, 20)
    assert observe(machine)[1] is None
    waits = Played(BOOT[:2])
    waits.picture = lambda now: b"%d" % min(now, 20)
    _, (status, _) = observe(waits)
    assert (status, 20 < waits.now < 31) == ("kernel-not-started", True)


def test_a_menu_whose_seconds_do_not_end_is_started_anew(observe):
    counts = (0.6, b"The highlighted entry will be executed automatically in 1s.")
    machine = Played([*BOOT[:2], counts], answers=40)
    machine.after_reset = [(0.1, b"SeaBIOS"), (0.3, b"GNU GRUB"), (2, b"Linux version 6.12")]
    watched, failure = observe(machine)
    assert (failure, watched.restarts, watched.new_starts, machine.resets) == (None, 0, 1, 1)
    stopped = Played([*BOOT[:2], counts])
    stopped.after_reset = [*BOOT[:2], counts]
    _, (status, _) = observe(stopped)
    assert (status, stopped.resets) == ("kernel-not-started", 2)
    assert 24 < stopped.now < 35
    # A sleeping boot loader waits for a key, so it is not restarted.
    sleeps = Played([*BOOT[:2], counts])
    sleeps.share = 0.02
    assert observe(sleeps)[1][0] == "kernel-not-started"
    assert sleeps.resets == 0


def works(now):
    """The states of a processor whose pointers advance."""
    return f"EIP=0000d375 ECX={int(now * 10):08x} HLT=0\nES =0000"


def circles(now):
    """The states of a processor that runs through the same few again and again."""
    return f"EIP=0000d375 ECX={int(now) % 3:08x} HLT=0\nES =0000"


def test_a_boot_loader_that_works_in_silence_is_given_time(observe):
    machine = Played([*BOOT[:2], (60, b"[ 0.0] Linux version 6.12\r\n")], answers=80)
    machine.registers = works
    assert observe(machine)[1] is None


def test_a_boot_loader_that_runs_in_a_circle_waits(observe):
    machine = Played(BOOT[:2])
    machine.registers = circles
    assert observe(machine)[1][0] == "kernel-not-started"
    assert machine.now < 13
    none = Played(BOOT[:1])
    none.registers = circles
    assert observe(none)[1][0] == "boot-loader-failed"
    assert none.now < 13


def test_a_boot_loader_that_gets_no_processor_is_given_time(observe):
    machine = Played(BOOT[:2], answers=80)
    # At most looks it is in the same state as before, because it has not run since.
    machine.registers, machine.share = lambda now: works(now * 0.02), 0.02
    assert observe(machine)[1] is None


def test_a_boot_loader_that_still_works_at_the_limit_has_not_failed(observe):
    seen = [Played(BOOT[:2]), Played([], handed_over=None)]
    for machine, last in zip(seen, ("boot loader", "nothing"), strict=True):
        machine.registers = works
        _, (status, message) = observe(machine)
        assert (status, machine.now >= 100) == ("timed-out", True)
        assert f"last seen: {last}" in message


@pytest.mark.parametrize(
    "words",
    [
        b"\r\nboot: ",
        b"\r\ngrub> \x1b[0m",
        b"Press any key to continue...\r\n",
        b"Use the ^ and v keys to select which entry is highlighted.\r\n Press enter to boot\r\n",
    ],
)
def test_words_show_that_a_boot_loader_waits(observe, words):
    machine = Played([*BOOT[:2], (0.6, words)])
    machine.registers = works
    assert observe(machine)[1][0] == "kernel-not-started"
    assert machine.now < 13
    shown = Played(BOOT[:2])
    shown.registers, shown.shown = works, words
    assert observe(shown)[1][0] == "kernel-not-started"
    assert shown.now < 13
    passed = Played([*BOOT[:2], (0.6, words), (0.7, b"Loading Linux")], answers=60)
    passed.registers = works
    assert (observe(passed)[1] is None) == (b"highlighted" not in words)


def test_who_says_that_the_kernel_is_dead_and_reads_on_has_lied(observe):
    said = [*SYSTEMD, (10, b"Kernel panic - not syncing: only a text\r\n")]
    machine = Played(said, answers=40, busy=99)
    assert observe(machine)[1] is None
    dead = Played(said, busy=10)
    assert observe(dead)[1][0] == "kernel-panic"
    assert dead.now < 17


def test_a_sign_does_not_count_while_a_busy_host_lets_nothing_run(observe):
    """The boot loader says that an entry fails, and goes on with the next one a minute later."""
    said = [*BOOT[:2], (0.6, b"Failed to execute Debian\r\n"), (60, b"Linux version 6.12\r\n")]
    machine = Played(said, answers=80)
    machine.share, machine.registers = 0.01, works
    assert observe(machine)[1] is None
    # One that sleeps needs no processor.
    sleeps = Played(said, answers=80)
    sleeps.share = 0.01
    assert observe(sleeps)[1][0] == "kernel-not-started"
    assert sleeps.now < 10
    runs = Played(said, answers=80)
    runs.registers = works
    assert observe(runs)[1][0] == "kernel-not-started"
    assert runs.now < 10


class InEmergency(Played):
    """A system that reports emergency mode at 20 s while a service continues to read the disk."""

    def __init__(self, said=(), **more):
        super().__init__([*SYSTEMD, *said], busy=99, **more)

    def read(self, seconds):
        text = super().read(seconds)
        if self.now >= 20 and not self.probe.data:
            self.probe.data = EMERGENCY + b"\n"
        return text


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([(20.1, b"You are in emergency mode. After\r\n")], "You are in emergency mode"),
        # Without a serial console, only the unit's report arrives.
        ([], "it is in emergency or rescue mode"),
    ],
)
def test_an_emergency_that_the_system_itself_tells_of_counts_while_disks_are_read(
    observe, said, words
):
    machine = InEmergency(said)
    _, (status, message) = observe(machine)
    assert (status, words in message) == ("emergency-mode", True)
    assert machine.now < 30


def test_an_emergency_that_somebody_has_ended_does_not_count(observe):
    assert observe(InEmergency(answers=25))[1] is None


def test_boot_code_that_says_nothing(observe):
    _, (status, _) = observe(Played([(0.2, b"SeaBIOS\r\n")]))
    assert status == "boot-loader-failed"


def test_a_kernel_without_a_console_is_not_taken_for_a_boot_loader(observe):
    machine = Played(BOOT[:2], answers=40)
    machine.kernel = True
    watched, failure = observe(machine)
    assert failure is None
    assert "kernel" in watched.phases


MEMTEST = b"      Memtest86+ v6.10       QEMU TCG CPU version 2.5+\nCLK/Temp: 2699MHz"


@pytest.mark.parametrize("shown", [MEMTEST, b"SeaBIOS\nLoading Memtest86+\n"])
@pytest.mark.parametrize("long_mode", [True, False])
def test_a_memory_tester_does_not_wait_for_a_key(observe, long_mode, shown):
    machine = Played(BOOT[:2])
    machine.shown, machine.kernel = shown, long_mode
    _, (status, message) = observe(machine, seconds=60)
    assert status == "timed-out"
    assert "it is the memory tester Memtest86+, which never answers" in message
    assert "key" not in message
    assert "console=ttyS0" not in message


def test_a_menu_with_a_memory_tester_is_a_menu(observe):
    menu = Played(BOOT[:2])
    menu.shown = b"  GNU GRUB  version 2.12\n *Debian\n  Memtest86+ 6.10"
    assert observe(menu)[1][0] == "kernel-not-started"


@pytest.mark.parametrize(
    "asks",
    [
        b"Please unlock disk cryptroot: ",
        b"Please enter passphrase for disk cryptroot (Linux):",
    ],
)
def test_a_system_that_asks_for_a_passphrase_is_told(observe, asks):
    _, (status, message) = observe(Played([*SYSTEMD[:-1], (10, asks)]), seconds=60)
    assert status == "timed-out"
    assert "asks for the passphrase of an encrypted disk (cryptroot" in message


def test_a_boot_loader_that_asks_for_a_passphrase_is_told(observe):
    asks = (1, b"Enter passphrase for hd0,gpt1 (7a887b2ee88e446ca1f1c50c1c8414af): ")
    _, (status, message) = observe(Played([*BOOT[:2], asks]))
    assert status == "kernel-not-started"
    assert "asks for the passphrase of an encrypted disk (hd0,gpt1" in message
    assert "key" not in message


@pytest.mark.slow
def test_a_flood_of_words_stays_bounded(observe):
    flood = [(10 + i / 100, b"flood " * 600) for i in range(2000)]
    machine = Played([*SYSTEMD, *flood], answers=25)
    watched, failure = observe(machine)
    assert failure is None
    assert len(watched._window) <= watch.OVERLAP_BYTES


PROMPT = [*SYSTEMD, (12, b"debian login: ")]


def test_a_prompt_is_enough_where_nothing_better_is_asked_for(observe):
    machine = Played(PROMPT)
    _, (status, message) = observe(machine, console_only=True)
    assert status == "console-only"
    assert "no proof" in message
    assert 20 <= machine.now < 22


def test_a_prompt_is_not_enough_otherwise_nor_when_the_machine_fails(observe):
    assert observe(Played(PROMPT))[1][0] == "timed-out"
    panic = (15, b"Kernel panic - not syncing: Fatal exception\r\n")
    assert observe(Played([*PROMPT, panic]), console_only=True)[1][0] == "kernel-panic"
    assert observe(Played(PROMPT, ends=(14, 0)), console_only=True)[1][0] == "powered-off-early"


@pytest.mark.parametrize(
    "line",
    [
        b"foo.service: Failed to execute /opt/x\r\n",
        b"Error loading plugin\r\n",
        b"Missing operating system on /dev/vdb\r\n",
        b"error: unknown filesystem\r\n",
        b"No bootable device\r\n",
        b"You are in emergency mode, says the fortune of the day\r\n",
    ],
)
def test_the_words_of_a_service_are_no_boot_loaders(observe, line):
    machine = Played([*SYSTEMD, (10, line)], answers=45, busy=99)
    assert observe(machine)[1] is None


def test_the_firmwares_own_channel_is_not_believed_once_there_is_a_kernel(observe):
    machine = Played(SYSTEMD, answers=45)
    machine.read_before, machine.console.read = machine.read, lambda seconds: lied(machine, seconds)

    def lied(machine, seconds):
        text = machine.read_before(seconds)
        if machine.now > 12:
            machine.firmware.data = b"Booting from 0000:7c00\nNo bootable device.\n"
        return text

    assert observe(machine)[1] is None


def test_an_init_is_seen_of_which_no_kernel_was(observe):
    machine = Played([(1, b"Welcome to Debian\r\n")], handed_over=None)
    assert observe(machine, seconds=20)[1][0] == "timed-out"

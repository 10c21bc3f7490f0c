"""Watch, against a machine that is played: what it shows, and when."""

import re
from types import SimpleNamespace

import pytest
from particle_os.boot import screen, watch
from particle_os.boot.watch import Watch
from particle_os.errors import VmError
from particle_os.system.deadline import Deadline
from particle_os.vm.console import QemuEnded

BEGIN, END, EMERGENCY = b"PROBE x", b"PROBE-END x", b"EMERGENCY x"
BOOT = [(0.2, b"SeaBIOS\r\n"), (0.5, b"EXTLINUX 6.04\r\n"), (2, b"[ 0.0] Linux version 6.12\r\n")]
SYSTEMD = [*BOOT, (6, b"Loading, please wait...\r\n"), (9, b"Welcome to Debian\r\n")]


class Channel:
    data = b""

    def forget(self):
        self.data = b""

    def wait_for_end(self, seconds):
        pass


class Played:
    """A machine whose console says `said` ((seconds, text) pairs), on a clock that is played too.

    `answers` is when the whole answer comes; `ends` (seconds, status) when QEMU ends; `restarts`
    when the guest resets the machine.
    """

    def __init__(self, said=(), answers=None, ends=None, restarts=(), handed_over=0.3, busy=0):
        self.now = 0.0
        self.said = sorted(said)
        self.answers, self.ends, self.restarts = answers, ends, sorted(restarts)
        self.handed_over, self.busy = handed_over, busy
        self.probe, self.firmware = Channel(), Channel()
        self.shown, self.share = b"", 1.0
        self.terminals, self.search_seconds, self.searches = b"", 0.5, 0
        self.picture = lambda now: None
        self.kernel = False
        # From when on QEMU's monitor is closed: it ends a moment later.
        self.closed = float("inf")
        self.console = SimpleNamespace(read=self.read, ends_within=self.ends_within)
        self.after_reset, self.resets = [], 0
        self.monitor = SimpleNamespace(
            events=self.events,
            last_events=self.events,
            disk_operations=self.operations,
            execute=self.execute,
        )

    def read(self, seconds):
        until = self.now + seconds
        if self.ends and self.ends[0] <= until:
            self.now = self.ends[0]
            raise QemuEnded(self.ends[1], [])
        if self.said and self.said[0][0] <= until:
            self.now, text = max(self.now, self.said[0][0]), self.said.pop(0)[1]
        else:
            self.now, text = until, b""
        if self.handed_over is not None and self.now >= self.handed_over:
            self.firmware.data = b"Booting from 0000:7c00\n"
        if self.answers is not None and self.now >= self.answers:
            self.probe.data = BEGIN + b"\n" + END
        return text

    def execute(self, command, deadline):
        assert command == "system_reset"
        self.resets += 1
        self.said = [(self.now + at, text) for at, text in self.after_reset]

    def search(self):
        self.searches += 1
        self.now += self.search_seconds
        return self.terminals

    def ends_within(self, seconds):
        if self.ends is None or self.ends[0] > self.now + seconds:
            return False
        self.now = max(self.now, self.ends[0])
        return True

    def events(self, deadline):
        if self.now >= self.closed:
            raise VmError("QEMU's monitor failed: [Errno 32] Broken pipe")
        due = [at for at in self.restarts if at <= self.now]
        self.restarts = self.restarts[len(due) :]
        shutdown = [{"event": "SHUTDOWN", "data": {"guest": True}}] if self.ends else []
        return [{"event": "RESET", "data": {"guest": True}} for _ in due] + shutdown

    def operations(self, deadline):
        return int(min(self.now, self.busy))


@pytest.fixture
def observe(monkeypatch):
    def run(machine, seconds=100.0, console_only=False):
        for module in (watch, screen):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: machine.now))
        monkeypatch.setattr(screen, "text", lambda m, d: m.shown)
        monkeypatch.setattr(screen, "picture", lambda m, d: m.picture(m.now))
        monkeypatch.setattr(screen, "terminals", lambda m, where: m.search())
        monkeypatch.setattr(screen, "kernel_runs", lambda m, d, uefi: m.kernel)
        monkeypatch.setattr(screen, "processor_seconds", lambda m: m.now * m.share)
        watched = Watch(
            machine, machine.probe, machine.firmware, begin=BEGIN, end=END,
            emergency=EMERGENCY, started=0.0,
            deadline=Deadline(at=seconds, seconds=seconds, what="the boot test"),
            on_phase=lambda name, at: None, memory=1 << 30, console_only=console_only,
        )  # fmt: skip
        return watched, watched.until_answer()

    return run


def test_the_answer_ends_the_wait_and_the_phases_are_timed(observe):
    watched, failure = observe(Played([*SYSTEMD, (12, b"debian login: ")], answers=15))
    assert failure is None
    assert list(watched.phases) == [
        "firmware", "boot loader", "kernel", "initramfs", "init", "login prompt", "answer",
    ]  # fmt: skip
    assert watched.phases["initramfs"] == pytest.approx(6, abs=0.3)


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
    # One that sleeps does not count.
    sleeps = Played([*BOOT[:2], counts])
    sleeps.share = 0.02
    assert observe(sleeps)[1][0] == "kernel-not-started"
    assert sleeps.resets == 0


@pytest.mark.parametrize(("share", "seconds"), [(0.02, 11), (0.3, 99)])
def test_a_boot_loader_that_gets_no_processor_is_given_time(observe, share, seconds):
    machine = Played(BOOT[:2], answers=15)
    machine.share = share
    _, failure = observe(machine)
    # One that sleeps until a key is pressed does not want any.
    assert (failure is None) == (share == 0.3)
    assert machine.now < seconds


def test_who_says_that_the_kernel_is_dead_and_reads_on_has_lied(observe):
    said = [*SYSTEMD, (10, b"Kernel panic - not syncing: only a text\r\n")]
    machine = Played(said, answers=40, busy=99)
    assert observe(machine)[1] is None
    dead = Played(said, busy=10)
    assert observe(dead)[1][0] == "kernel-panic"
    assert dead.now < 17


class InEmergency(Played):
    """It tells of its emergency mode at 20 s, while a service goes on to read the disk."""

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
        # Without a serial console nothing is read.
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


def test_a_time_out_tells_a_kernel_without_a_serial_console(observe):
    silent = Played(BOOT[:2])
    silent.kernel = True
    _, (status, message) = observe(silent, seconds=60)
    assert (status, "console=ttyS0" in message, "--evidence" in message) == (
        "timed-out",
        True,
        True,
    )
    _, (_, message) = observe(Played([*BOOT, (9, b"[ 6.0] it does something\r\n")]), seconds=60)
    assert "console=ttyS0" not in message


def test_a_uefi_loader_that_waits(observe):
    started = b'BdsDxe: starting Boot0001 "UEFI Misc Device"\r\n'
    said = [(1, b"\x1b[=3h\x1b[2J"), (2, started), (3, b"a menu")]
    machine = Played(said, handed_over=None)
    _, (status, _) = observe(machine)
    assert (status, machine.now < 13) == ("kernel-not-started", True)


def test_restarts(observe):
    watched, failure = observe(Played(SYSTEMD, answers=30, restarts=[0.1, 0.15]))
    assert (failure, watched.restarts) == (None, 2)
    _, (status, message) = observe(Played(restarts=[1, 5, 9], handed_over=None))
    assert status == "reboot-loop"
    assert "3 times" in message


def test_a_jump_to_the_start_is_a_restart(observe):
    """QEMU tells of one reset only: that with which the firmware answers the jump."""
    machine = Played(restarts=[1, 2, 3, 4], handed_over=None)
    read = machine.read

    def says(seconds):
        text = read(seconds)
        times = sum(machine.now >= at for at in (1, 2, 3, 4))
        start = b"SeaBIOS (version 1.16)\nBUILD: gcc\n"
        machine.firmware.data = start + times * (b"Attempting a hard reboot\n" + start)
        return text

    machine.console.read = says
    watched, (status, _) = observe(machine)
    assert (status, watched.restarts, machine.now < 6) == ("reboot-loop", 3, True)


def test_a_restart_that_the_firmware_makes_two_resets_of_is_one(observe):
    machine = Played(SYSTEMD, answers=60, restarts=[20, 20.05, 40, 40.05])
    read = machine.read

    def says(seconds):
        text = read(seconds)
        times = sum(machine.now >= at for at in (20.03, 40.03))
        machine.firmware.data = b"Booting from 0000:7c00\n" + times * (
            b"In resume (status=0)\nAttempting a hard reboot\nSeaBIOS (version 1.16)\n"
        )
        return text

    machine.console.read = says
    watched, failure = observe(machine)
    assert (failure, watched.restarts) == (None, 2)
    # What it said before QEMU told of the reset is of the new start.
    assert watched.phases["firmware"] == pytest.approx(40, abs=0.5)


def test_the_screen_of_the_start_before_shows_no_phase(observe):
    machine = Played(SYSTEMD, restarts=[20.5])
    read = machine.read

    def shows(seconds):
        text = read(seconds)
        machine.shown = b"x login: " if 20.5 <= machine.now < 21.5 else b""
        return text

    machine.console.read = shows
    watched, _ = observe(machine)
    assert "login prompt" not in watched.phases


@pytest.mark.parametrize(
    ("line", "status"),
    [(b"You are in emergency mode.\r\n", "emergency-mode"), (b"all is well\r\n", "timed-out")],
)
def test_an_answer_from_before_a_restart_hides_nothing_after_it(observe, line, status):
    machine = Played([*SYSTEMD, (31, b"SeaBIOS\r\n"), (40, line)], restarts=[30])
    read, told = machine.read, [BEGIN + b"\nfacts QUJD\n"]

    def says(seconds):
        text = read(seconds)
        if told and machine.now >= 20:
            machine.probe.data = told.pop()
        return text

    machine.console.read = says
    watched, failure = observe(machine)
    assert failure[0] == status
    assert list(watched.phases) == ["firmware"]


def test_a_restart_after_a_panic_tells_the_panic(observe):
    said = [*BOOT, (5, b"Kernel panic - not syncing: Fatal exception\r\n")]
    _, (status, _) = observe(Played(said, restarts=[6]))
    assert status == "kernel-panic"


def test_the_machine_switches_itself_off(observe):
    _, (status, _) = observe(Played(SYSTEMD, ends=(12, 0)))
    assert status == "powered-off-early"


def test_qemus_own_death_is_no_verdict(observe):
    with pytest.raises(QemuEnded):
        observe(Played(SYSTEMD, ends=(12, -6)))


def test_a_time_out_names_the_phases(observe):
    _, (status, message) = observe(Played([*SYSTEMD, (12, b"x login: ")]), seconds=60)
    assert status == "timed-out"
    for words in ("60 s", "last seen: login prompt", "older than 252", "ttyS1 is missing"):
        assert words in message
    took = re.search(r"kernel ([\d.]+) s, .*login prompt ([\d.]+) s so far\)", message)
    assert took and float(took[1]) < 10
    assert 47 < float(took[2]) < 50


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


class Settling(Played):
    """It says its first word at 10 s, and its facts at `settles`."""

    settles = 1000.0

    def read(self, seconds):
        text = super().read(seconds)
        if self.now >= 10:
            self.probe.data = BEGIN + b"\n" + (b"facts QUJD\n" if self.now >= self.settles else b"")
        return text


def test_a_time_out_tells_what_was_waited_for(observe):
    _, (status, message) = observe(Settling(SYSTEMD), seconds=60)
    assert (status, "systemd has not settled" in message) == ("timed-out", True)
    # A getty that hangs up the probe's port looks the same from here.
    assert "something else has taken ttyS1" in message
    machine = Settling(SYSTEMD)
    machine.settles = 20
    watched, (status, message) = observe(machine, seconds=60)
    assert (status, "a check has not ended" in message) == ("timed-out", True)
    assert watched.phases["checks"] == pytest.approx(20, abs=0.5)


def test_a_kernel_that_dies_after_the_first_word_is_told(observe):
    panic = (15, b"Kernel panic - not syncing: Fatal exception\r\n")
    assert observe(Settling([*SYSTEMD, panic]))[1][0] == "kernel-panic"
    emergency = (15, b"You are in emergency mode.\r\n")
    assert observe(Settling([*SYSTEMD, emergency]))[1][0] == "timed-out"


PANIC = b"[ 8.8] Kernel panic - not syncing: Attempted to kill init!"


def silent(picture, **more):
    """A machine whose kernel says nothing on its console, and has `picture` on its screen."""
    machine = Played(BOOT[:2], handed_over=None, **more)
    machine.kernel, machine.picture = True, picture
    machine.terminals = PANIC
    return machine


def test_a_failure_on_a_graphical_screen_that_stands_still_is_found(observe):
    machine = silent(lambda now: b"%d" % min(now, 20), busy=20)
    _, failure = observe(machine)
    assert failure == ("kernel-panic", f"the screen says: {PANIC.decode()[7:]}")
    assert 20 < machine.now < 30


def shut_down(observe, machine):
    """What is seen of a system that is told to shut down once it has answered."""
    watched, failure = observe(machine)
    assert failure is None
    return watched.until_off()


def test_qemu_closes_its_monitor_a_moment_before_it_ends(observe):
    machine = Played(SYSTEMD, answers=15, ends=(20.4, 0))
    machine.closed = 20.0
    assert shut_down(observe, machine) is None


def test_a_monitor_that_fails_while_qemu_runs_is_the_hosts(observe):
    machine = Played(SYSTEMD, answers=15, ends=(90, 0))
    machine.closed = 20.0
    with pytest.raises(VmError, match="Broken pipe"):
        shut_down(observe, machine)


def test_a_system_that_shuts_down(observe):
    assert shut_down(observe, Played(SYSTEMD, answers=15, ends=(18, 0))) is None


def test_a_panic_while_it_shuts_down_is_told_soon(observe):
    machine = Played([*SYSTEMD, (17, PANIC)], answers=15)
    status, message = shut_down(observe, machine)
    assert (status, "Attempted to kill init" in message) == ("kernel-panic", True)
    assert machine.now < 27


def test_what_only_says_that_it_has_panicked_while_it_shuts_down(observe):
    machine = Played([*SYSTEMD, (17, PANIC)], answers=15, ends=(40, 0), busy=40)
    assert shut_down(observe, machine) is None


def test_a_machine_that_restarts_while_it_shuts_down(observe):
    machine = Played(SYSTEMD, answers=15, restarts=[20])
    assert shut_down(observe, machine) == ("reboot-loop", "the machine restarts")
    assert machine.now < 21


def test_a_system_that_does_not_shut_down(observe):
    status, message = shut_down(observe, Played(SYSTEMD, answers=15))
    assert (status, "100 s" in message) == ("timed-out", True)


def test_a_cursor_that_blinks_is_no_life(observe):
    _, failure = observe(silent(lambda now: b"%d" % (now % 2)))
    assert failure[0] == "kernel-panic"


def test_an_init_is_seen_of_which_no_kernel_was(observe):
    machine = Played([(1, b"Welcome to Debian\r\n")], handed_over=None)
    assert observe(machine, seconds=20)[1][0] == "timed-out"


def test_searches_leave_a_slow_machine_most_of_its_time(observe):
    machine = silent(lambda now: b"still")
    machine.terminals, machine.search_seconds = b"", 5
    _, failure = observe(machine, seconds=100)
    assert failure[0] == "timed-out"
    assert 3 <= machine.searches <= 5


@pytest.mark.parametrize(
    "machine",
    [
        silent(lambda now: b"%d" % now),
        silent(lambda now: b"still", busy=999),
        silent(lambda now: None),
    ],
    ids=["draws", "reads", "text"],
)
def test_what_goes_on_is_not_stopped_and_searched(observe, machine):
    _, failure = observe(machine, seconds=40)
    assert (failure[0], machine.searches) == ("timed-out", 0)

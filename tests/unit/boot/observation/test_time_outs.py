"""A time-out, and what it says about the system that gave no answer."""

import re

import pytest

from ..played import BEGIN, BOOT, END, SYSTEMD, Played


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


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"Detected virtualization docker.\r\n", "a container (docker)"),
        (b"systemd 247.3-7+deb11u5 running in system mode (+PAM)", "its systemd is 247"),
        (b"INIT: version 3.06 booting\r\n", "its init is System V's (3.06)"),
        (b"   OpenRC 0.45.2 is starting up Linux", "its init is OpenRC 0.45.2"),
        (b"Please configure your system!\r\n", "waits for a person to configure it"),
    ],
)
def test_a_time_out_gives_the_reasons_that_were_seen(observe, said, reason):
    _, (_, message) = observe(Played([*SYSTEMD, (10, said), (12, b"x login: ")]), seconds=60)
    assert reason in message
    assert "does not say why" not in message
    good = Played([*SYSTEMD, (10, b"systemd 257.1-1 running in system mode"), (12, b"x login: ")])
    assert "systemd is" not in observe(good)[1][1]


def test_a_time_out_names_the_phases(observe):
    _, (status, message) = observe(Played([*SYSTEMD, (12, b"x login: ")]), seconds=60)
    assert status == "timed-out"
    for words in ("60 s", "last seen: login prompt", "does not say why", "--console-only"):
        assert words in message
    took = re.search(r"kernel ([\d.]+) s, .*login prompt ([\d.]+) s so far\)", message)
    assert took and float(took[1]) < 10
    assert 47 < float(took[2]) < 50


class Settling(Played):
    """A system that begins its answer at 10 s and sends its facts at `settles` (seconds)."""

    settles = 1000.0

    def read(self, seconds):
        text = super().read(seconds)
        if self.now >= 10:
            self.probe.data = BEGIN + b"\n" + (b"facts QUJD\n" if self.now >= self.settles else b"")
        return text


def test_a_time_out_tells_what_was_waited_for(observe):
    _, (status, message) = observe(Settling(SYSTEMD), seconds=60)
    assert (status, "systemd has not settled" in message) == ("timed-out", True)
    # A getty that hangs up the probe's port has the same symptom.
    assert "another program has taken ttyS1" in message
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


class Slow(Played):
    """A system that answers at 150 s. It waits for a processor for a share of the time."""

    def __init__(self, starved):
        super().__init__(SYSTEMD)
        self.starved = starved

    def read(self, seconds):
        text = super().read(seconds)
        if self.now >= 150:
            self.probe.data = BEGIN + b"\n" + END + b"\n"
        return text


@pytest.mark.parametrize(("starved", "ends"), [(0.0, 100), (0.2, 125), (0.6, 150), (0.9, 150)])
def test_a_busy_host_does_not_use_up_the_time_limit(observe, starved, ends):
    machine = Slow(starved)
    _, outcome = observe(machine, seconds=100)
    assert machine.now == pytest.approx(ends, abs=1)
    assert (outcome is None) == (ends == 150)
    if starved == 0.2:
        assert "no answer within 100 s and 25 s in which the host was busy" in outcome[1]


def test_a_boot_ends_however_busy_the_host_is(observe):
    machine = Played(SYSTEMD)
    machine.starved = 1.0
    _, (status, message) = observe(machine, seconds=30)
    assert (status, machine.now) == ("timed-out", pytest.approx(120, abs=1))
    assert "30 s and 90 s in which the host was busy" in message

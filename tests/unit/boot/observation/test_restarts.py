"""Tests of Watch when the machine under test restarts or ends."""

import pytest
from particle_os.vm.console import QemuEnded

from ..played import BEGIN, BOOT, SYSTEMD, Played


def test_restarts(observe):
    watched, failure = observe(Played(SYSTEMD, answers=30, restarts=[0.1, 0.15]))
    assert (failure, watched.restarts) == (None, 2)
    _, (status, message) = observe(Played(restarts=[1, 5, 9], handed_over=None))
    assert status == "reboot-loop"
    assert "3 times" in message


def test_a_jump_to_the_start_is_a_restart(observe):
    """QEMU reports only one reset: the reset by the firmware after the jump."""
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
    # Output of the firmware just before QEMU's event belongs to the new start.
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
    read, answers = machine.read, [BEGIN + b"\nfacts QUJD\n"]

    def says(seconds):
        text = read(seconds)
        if answers and machine.now >= 20:
            machine.probe.data = answers.pop()
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

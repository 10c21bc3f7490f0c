"""Tests of Watch when a system shuts down after its answer."""

import pytest
from particle_os.errors import VmError

from ..played import PANIC, SYSTEMD, Played


def shut_down(observe, machine):
    """Returns the outcome of an ordered shutdown after the answer."""
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

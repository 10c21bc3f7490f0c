"""The campaign that cuts the power of machines counts only cuts, and kills only what it means."""

import random
import threading

import pytest
from particle_os.boot.attempt import Undecided
from particle_os.boot.updates import scripts
from particle_os.errors import InfrastructureError

from tests.updates import power
from tests.updates.power import OrderedBoot, PowerCut
from tests.waiting import until

OLD, NEW = "a" * 64 + ".0", "b" * 64 + ".0"
UNDECIDED = Undecided(InfrastructureError("QEMU ended"), None)
TAKING, RETURNING = 60.0, 20.0


class Update:
    def finish(self):
        pass


class Machines:
    """Plays all machines of a campaign, one after the other."""

    def __init__(self, cuts=(), checks=()):
        self.cuts = list(cuts)
        self.checks = list(checks)
        self.moments = []

    def __call__(self, update, place):
        return self

    def boot(self, script, moment=None):
        """The next boot; a cut hits unless the next of `cuts` says otherwise."""
        if moment is not None:
            self.moments.append((script, moment))
            hit = self.cuts.pop(0) if self.cuts else True
            return OrderedBoot(OLD, moment, hit)
        if script != "true":
            return OrderedBoot(OLD, TAKING if script == scripts.TAKE else RETURNING)
        answer = self.checks.pop(0) if self.checks else NEW
        if isinstance(answer, Exception):
            raise answer
        return OrderedBoot(answer, 1.0)


def cut(machines, number):
    return power.cut(Update(), number, random.Random(1), machines)


def test_the_moments_lie_between_the_order_and_the_end_of_the_machine():
    machines = Machines()
    assert cut(machines, 40) == 0
    assert [script for script, _ in machines.moments] == [scripts.TAKE, scripts.RETURN] * 20
    for script, longest in ((scripts.TAKE, TAKING), (scripts.RETURN, RETURNING)):
        drawn = [moment for found, moment in machines.moments if found == script]
        assert max(drawn) <= longest
        assert max(drawn) > longest / 2


def test_only_cuts_that_hit_are_counted(capsys):
    machines = Machines(cuts=[False, True, False, True])
    assert cut(machines, 2) == 0
    assert len(machines.moments) == 4
    out = capsys.readouterr().out
    assert out.count("not counted: the machine had ended before") == 2
    assert "2 times: the same version 0 times, the other one 2 times" in out


def test_a_failure_of_the_host_after_a_cut_does_not_end_the_campaign(capsys):
    machines = Machines(checks=[UNDECIDED, OLD, NEW])
    assert cut(machines, 2) == 0
    out = capsys.readouterr().out
    assert "not counted: QEMU ended" in out
    assert "2 times: the same version 1 times, the other one 1 times" in out


def test_a_machine_that_does_not_boot_after_a_cut_fails_the_campaign(capsys):
    assert cut(Machines(checks=[AssertionError("timed-out: no answer")]), 2) == 1
    assert "timed-out: no answer" in capsys.readouterr().out


def test_a_campaign_without_enough_cuts_fails():
    assert cut(Machines(cuts=[False] * 6), 2) == 1


def test_a_cut_that_comes_too_late_never_strikes():
    struck = []
    with PowerCut(3600.0, lambda: struck.append(1) or True) as found:
        found.begin()
        assert any(isinstance(each, threading.Timer) for each in threading.enumerate())
    assert not any(isinstance(each, threading.Timer) for each in threading.enumerate())
    assert (found.hit, struck) == (False, [])


@pytest.mark.parametrize("killed", [True, False])
def test_a_cut_tells_whether_it_has_hit_a_machine(killed):
    struck = threading.Event()

    def kill():
        struck.set()
        return killed

    with PowerCut(0.0, kill) as found:
        found.begin()
        until(struck.is_set)
    assert found.hit is killed


def test_a_machine_that_fails_before_the_order_needs_no_cut():
    with PowerCut(1.0, lambda: True) as found:
        pass
    assert not found.hit

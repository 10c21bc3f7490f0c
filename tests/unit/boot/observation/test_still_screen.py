"""Tests of Watch when nothing moves on a graphical screen."""

import pytest

from ..played import BOOT, PANIC, Played


def silent(picture, **more):
    """Returns a machine with a silent console and `picture` on its screen."""
    machine = Played(BOOT[:2], handed_over=None, **more)
    machine.kernel, machine.picture = True, picture
    machine.terminals = PANIC
    return machine


def test_a_failure_on_a_graphical_screen_that_stands_still_is_found(observe):
    machine = silent(lambda now: b"%d" % min(now, 20), busy=20)
    _, failure = observe(machine)
    assert failure == ("kernel-panic", f"the screen says: {PANIC.decode()[7:]}")
    assert 20 < machine.now < 30


def test_a_cursor_that_blinks_is_no_life(observe):
    _, failure = observe(silent(lambda now: b"%d" % (now % 2)))
    assert failure[0] == "kernel-panic"


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

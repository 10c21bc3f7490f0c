"""The order of builds keeps all slots busy to the end: a simulation with a clock of its own."""

import heapq
import random
from pathlib import Path

import pytest
from particle_os.fleet.farm.client.dispatch import Dispatch
from particle_os.fleet.order import Order
from particle_os.fleet.planning import longest_first
from particle_os.jobs.plan import BuildOptions

OPTIONS = BuildOptions()


def order(name, seconds=None):
    return Order(str(name), Path("r.yml"), OPTIONS, seconds=seconds)


def simulate(orders, times, slots):
    """The time of the end of all builds; `times` has the seconds of each."""
    dispatch, now, running = Dispatch(orders), 0.0, []
    while not dispatch.is_done:
        for each in dispatch.due(slots):
            heapq.heappush(running, (now + times[each.name], each.name))
        assert len(running) <= slots
        now, name = heapq.heappop(running)
        dispatch.ended(name)
    return now


def bound(times, slots):
    return max(max(times.values()), sum(times.values()) / slots)


@pytest.mark.parametrize("seed", range(20))
def test_200_builds_on_16_workers_end_within_10_percent_of_the_lower_bound(seed):
    """The times of earlier builds are known, and wrong by up to 30 %."""
    draw = random.Random(seed)
    kinds = (
        lambda: draw.uniform(20, 60),
        lambda: draw.uniform(60, 400),
        lambda: draw.uniform(1, 5),
    )
    times = {str(number): draw.choice(kinds)() for number in range(200)}
    orders = [order(name, seconds * draw.uniform(0.7, 1.3)) for name, seconds in times.items()]
    assert simulate(longest_first(orders), times, 16) <= 1.1 * bound(times, 16)


def test_the_order_of_the_names_would_not_do():
    """A positive control: the longest build at the end keeps one worker busy alone."""
    times = {str(number): 10.0 for number in range(160)} | {"x": 100.0}
    orders = [order(name, seconds) for name, seconds in times.items()]
    assert simulate(orders, times, 16) > 1.5 * bound(times, 16)
    assert simulate(longest_first(orders), times, 16) <= 1.1 * bound(times, 16)


def test_builds_of_unknown_length_come_first_and_others_in_their_order():
    found = longest_first([order("a", 5.0), order("b"), order("c", 9.0), order("d"), order("e", 9)])
    assert [each.name for each in found] == ["b", "d", "c", "e", "a"]


def test_no_more_run_than_there_are_slots_or_jobs():
    dispatch = Dispatch([order(number) for number in range(9)], most=4)
    assert len(dispatch.due(3)) == 3
    assert len(dispatch.due(3)) == 0
    assert len(dispatch.due(64)) == 1
    assert dispatch.due(0) == []


def test_a_build_that_begins_again_comes_before_those_that_wait():
    dispatch = Dispatch([order("a"), order("b")])
    assert [each.name for each in dispatch.due(1)] == ["a"]
    dispatch.again("a")
    assert [each.name for each in dispatch.due(2)] == ["a", "b"]
    assert dispatch.attempts == {"a": 2, "b": 1}


def test_after_a_stop_nothing_begins():
    dispatch = Dispatch([order("a"), order("b")])
    dispatch.due(1)
    dispatch.stop()
    dispatch.ended("a")
    assert dispatch.is_done and dispatch.due(5) == []

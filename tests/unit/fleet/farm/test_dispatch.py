"""The order of builds keeps all slots busy to the end: a simulation with a clock of its own."""

import heapq
import random
from pathlib import Path

import pytest
from particle_os.fleet.farm.client.dispatch import Dispatch
from particle_os.fleet.order import Order
from particle_os.fleet.planning import longest_first, spread
from particle_os.jobs.plan import BuildOptions

OPTIONS = BuildOptions()


def order(name, seconds=None, stem=""):
    return Order(str(name), Path("r.yml"), OPTIONS, seconds=seconds, stem=stem or str(name))


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


def many_lengths(draw):
    """Minutes, seconds, and all between; every image has a first stage of its own."""
    kinds = ((20, 60), (60, 400), (1, 5))
    return [(draw.uniform(*draw.choice(kinds)), "") for _ in range(200)]


def long_matrix(draw):
    """The images of a matrix, which begin with the same stage, take longer than all others."""
    return [(400.0, "matrix")] * 20 + [(60.0, "")] * 180


def random_matrix(draw):
    long = [(draw.uniform(200, 400), "matrix") for _ in range(40)]
    return long + [(draw.uniform(20, 60), "") for _ in range(160)]


@pytest.mark.parametrize("place", ["farm", "this machine"])
@pytest.mark.parametrize("mix", [many_lengths, long_matrix, random_matrix])
@pytest.mark.parametrize("seed", range(8))
def test_200_builds_on_16_workers_end_within_10_percent_of_the_lower_bound(mix, seed, place):
    """The times of earlier builds are known, and wrong by up to 30 %."""
    draw = random.Random(seed)
    found = {str(number): each for number, each in enumerate(mix(draw))}
    times = {name: seconds for name, (seconds, _) in found.items()}
    orders = longest_first(
        order(name, seconds * draw.uniform(0.7, 1.3), stem)
        for name, (seconds, stem) in found.items()
    )
    ordered = orders if place == "farm" else spread(orders, 16)
    assert simulate(ordered, times, 16) <= 1.1 * bound(times, 16)


@pytest.mark.parametrize(
    ("stems", "jobs", "expected"),
    [
        ("aabbcc", 2, "ab ab c c"),
        ("aabbcc", 1, "a a b b c c"),
        ("aaab", 3, "a b a a"),
        ("aaaa", 2, "a a a a"),
        ("abc", 9, "a b c"),
    ],
)
def test_images_of_one_stem_do_not_begin_together_while_others_wait(stems, jobs, expected):
    """The second one would only wait for the stage that the first one makes."""
    orders = [order(number, stem=stem) for number, stem in enumerate(stems)]
    found = spread(orders, jobs)
    assert "".join(each.stem for each in found) == expected.replace(" ", "")
    for stem in set(stems):
        names = [each.name for each in found if each.stem == stem]
        assert names == sorted(names)


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

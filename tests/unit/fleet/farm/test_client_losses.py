"""A fault of a farm costs the build that it is about, and ends in time."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from particle_os.errors import InfrastructureError
from particle_os.fleet.farm.client.connection import Answered, FarmConnection, FarmLost, Heard
from particle_os.fleet.farm.slots import resources

from ....waiting import HANG_SECONDS
from .played_client import Farm, failed, good, on, order


@pytest.mark.parametrize(
    "answer",
    [
        {"code": 0},
        {"code": "x"},
        [1],
        "text",
        {},
        {"code": 0, "seconds": 1.0, "output": "", "error": [], "cancelled": False},
        {"code": 3, "seconds": 1.0, "output": "", "error": {"error": 7}, "cancelled": False},
        {"code": 3, "seconds": 1.0, "output": 7, "error": None, "cancelled": False},
        {"code": -9, "seconds": 1.0, "output": "", "error": None, "cancelled": False},
    ],
)
def test_a_malformed_answer_costs_its_build_and_no_other(run, answer):
    _, ends = run(Farm(lambda n, w: [good(n) if n == "b" else Answered(n, answer)]), "a", "b", "c")
    assert {name: end.exit_code for name, end in ends.items()} == {"a": 5, "b": 0, "c": 5}
    assert "an answer that is none" in ends["a"].error.brief


def test_a_malformed_event_costs_nothing(run):
    bad = Heard("a", "w1", [{"event": "note"}, {"event": 7}, {}, {"event": "note", "text": "ok"}])
    seen, ends = run(Farm(lambda name, worker: [on("w1", name), bad, good(name)]), "a")
    assert ends["a"].exit_code == 0 and "a ok" in seen.lines


@pytest.mark.parametrize("error", [KeyError("x"), UnicodeError("x"), OSError(28, "full")])
def test_an_error_while_a_result_is_fetched_costs_its_build_and_no_other(run, error):
    class Lossy(Farm):
        def deliver(self, order, end):
            if order.name == "a":
                raise error
            return end

    _, ends = run(Lossy(lambda name, worker: [good(name)]), "a", "b")
    assert ends["a"].exit_code in (1, 5) and ends["b"].exit_code == 0


def test_a_slot_has_the_next_build_while_a_result_is_fetched(run):
    """The fetching of `a` ends only when `b` has begun."""
    begun = threading.Event()

    class Slow(Farm):
        def deliver(self, order, end):
            assert begun.wait(HANG_SECONDS)
            return end

    def answer(name, worker):
        if name == "b":
            begun.set()
        return [good(name)]

    _, ends = run(Slow(answer), "a", "b", jobs=1)
    assert {end.exit_code for end in ends.values()} == {0}


def left_alone(farm, answers):
    """Lets the members of a farm be those of `answers`, one set each 100 s; then the last."""
    left = iter(answers)

    def workers():
        farm.clock.sleep(100)
        farm.members = next(left, farm.members)
        return farm.members

    farm.workers = workers


def test_a_build_whose_only_worker_never_comes_back_ends_the_command(run):
    farm = Farm(lambda name, worker: [on("w1", name)], ("w1",))
    left_alone(farm, [farm.members, farm.members, {}])
    with pytest.raises(InfrastructureError, match="no worker of the farm takes the builds"):
        run(farm, "a")
    assert farm.submitted == [("a", "w1", 0)]


def test_a_build_on_a_worker_whose_disk_is_full_goes_on(run):
    """The worker takes no other build: this one is no reason to give up."""
    farm = Farm(lambda name, worker: [on("w1", name)], ("w1",))
    members = farm.members
    left_alone(farm, [members, *[{"w1": {**members["w1"], "vm": 0}}] * 20, members])
    count = iter(range(30))
    workers = farm.workers

    def answering():
        if next(count) == 25:
            farm.inbox.put(good("a"))
        return workers()

    farm.workers = answering
    _, ends = run(farm, "a")
    assert ends["a"].exit_code == 0


def test_a_build_whose_second_machine_is_gone_goes_to_any_other(run):
    """It was for the second machine alone."""

    def answer(name, worker):
        return {0: [on("w1", name), failed(name)], 1: []}.get(len(farm.submitted) - 1, [good(name)])

    farm = Farm(answer)
    both, first = farm.members, {"w1": farm.members["w1"]}
    states = iter([both])

    def workers():
        farm.clock.sleep(10)
        return next(states, both if len(farm.submitted) < 2 else first)

    farm.workers = workers
    _, ends = run(farm, "a")
    assert ends["a"].exit_code == 0 and farm.cancelled == ["a"]
    assert [worker for _, worker, _ in farm.submitted][:2] == ["w1", "w2"]
    assert len(farm.submitted) == 3


def test_an_image_that_no_worker_can_build_does_not_hold_up_others(run):
    farm = Farm(lambda name, worker: [good(name)], ("w1",))
    farm.members = {"w1": resources(1, kvm=False, architectures=["amd64"])}
    workers = farm.workers
    farm.workers = lambda: (farm.clock.sleep(100), workers())[1]
    with pytest.raises(InfrastructureError, match="w1 has no arm64"):
        run(farm, replace(order("a"), architecture="arm64"), "b")
    assert [name for name, _, _ in farm.submitted] == ["b"]
    assert farm.ends["b"].exit_code == 0


@pytest.mark.parametrize("error", [KeyError("workers"), TimeoutError(), OSError("x"), TypeError()])
def test_a_scheduler_without_a_whole_answer_is_lost(error):
    def sync(*arguments, callback_timeout, **more):
        assert 0 < callback_timeout <= 60
        raise error

    link = object.__new__(FarmConnection)
    link._client = SimpleNamespace(sync=sync, scheduler=SimpleNamespace(identity=None))
    with pytest.raises(FarmLost):
        link.workers()

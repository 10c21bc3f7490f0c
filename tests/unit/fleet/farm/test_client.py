"""The client of a farm loses no image, whatever a farm does; the tests play the farm."""

import json
import queue
from types import SimpleNamespace

import pytest
from particle_os.errors import InfrastructureError, ParticleError
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.farm.client.connection import Answered, FarmConnection, FarmLost, Heard
from particle_os.fleet.farm.slots import resources, version

from .played_client import Farm, failed, good, on


def test_all_images_are_built_in_the_given_order(run):
    farm = Farm(lambda name, worker: [on(worker, name), good(name)])
    seen, ends = run(farm, "a", "b", "c")
    assert {name: end.status for name, end in ends.items()} == dict.fromkeys("abc", "passed")
    assert [name for name, _, _ in farm.submitted] == ["a", "b", "c"]
    priorities = [priority for _, _, priority in farm.submitted]
    assert priorities == sorted(priorities, reverse=True)
    assert farm.delivered == ["a", "b", "c"] and farm.running == {}
    assert seen.lines[:2] == ["a began", "a runs on w1"]


def test_events_are_shown_as_those_of_a_build_here(run):
    events = [{"event": "worker", "host": "h"}, {"event": "note", "text": "hello"}]
    farm = Farm(lambda name, worker: [Heard(name, worker, events), good(name)])
    seen, _ = run(farm, "a")
    assert seen.lines == ["a began", "a runs on h", "a hello", "a passed"]


def test_a_lost_worker_is_named_when_the_build_begins_again(run):
    farm = Farm(lambda name, worker: [on("w1", name), on("w2", name), good(name)])
    seen, _ = run(farm, "a")
    assert "a its worker was lost; it begins again on w2" in seen.lines


@pytest.mark.parametrize("code", [5, 137])
def test_a_spoilt_machine_costs_another_attempt_elsewhere(run, code):
    def answer(name, worker):
        return [on(worker, name), failed(name, code) if worker == "w1" else good(name)]

    farm = Farm(answer)
    seen, ends = run(farm, "a")
    assert ends["a"].status == "passed"
    assert [worker for _, worker, _ in farm.submitted] == ["w1", "w2"]
    assert any("begins again on another machine" in line for line in seen.lines)


def test_a_machine_is_not_blamed_twice(run):
    farm = Farm(lambda name, worker: [on(worker, name), failed(name)], ("w1", "w2"))
    _, ends = run(farm, "a")
    assert ends["a"].exit_code == 5 and ends["a"].error.brief == "no space left"
    assert len(farm.submitted) == 2


def test_without_another_machine_the_error_is_the_end(run):
    farm = Farm(lambda name, worker: [on("w1", name), failed(name)], ("w1",))
    farm.members["w2"] = {**resources(1, kvm=False), version(): 0}
    _, ends = run(farm, "a")
    assert ends["a"].exit_code == 5 and len(farm.submitted) == 1


@pytest.mark.parametrize("code", [2, 3, 4])
def test_the_fault_of_a_recipe_is_no_reason_for_another_attempt(run, code):
    farm = Farm(lambda name, worker: [on(worker, name), failed(name, code)])
    _, ends = run(farm, "a")
    assert ends["a"].exit_code == code and len(farm.submitted) == 1


def test_what_the_scheduler_has_lost_begins_again_with_a_new_connection(run):
    """`b` is done, and is not built again."""

    def answer(name, worker):
        return [Answered(name)] if name == "a" and farm.connections < 3 else [good(name)]

    farm = Farm(answer)
    seen, ends = run(farm, "b", "a")
    assert {name: end.status for name, end in ends.items()} == {"a": "passed", "b": "passed"}
    assert [name for name, _, _ in farm.submitted].count("b") == 1
    assert farm.connections == 3
    assert "a the scheduler of the farm was lost; the build begins again" in seen.lines


def test_a_scheduler_that_is_always_lost_ends_the_command(run):
    farm = Farm(lambda name, worker: [Answered(name)])
    with pytest.raises(InfrastructureError, match="lost 6 times"):
        run(farm, "a")


def test_a_scheduler_that_is_started_again_is_waited_for(run, monkeypatch):
    farm = Farm(lambda name, worker: [Answered(name)] if farm.connections < 2 else [good(name)])
    connect, failures = farm.connect, iter([None, "refused", "refused"])

    def flaky(inbox):
        if reason := next(failures, None):
            raise InfrastructureError(reason)
        return connect(inbox)

    monkeypatch.setattr(farm, "connect", flaky)
    _, ends = run(farm, "a")
    assert ends["a"].exit_code == 0 and next(failures, None) is None


def test_a_scheduler_that_never_answers_is_an_error_at_once(run, monkeypatch):
    farm, calls = Farm(lambda name, worker: [good(name)]), []

    def refuse(inbox):
        calls.append(inbox)
        raise InfrastructureError("the scheduler does not answer")

    monkeypatch.setattr(farm, "connect", refuse)
    with pytest.raises(InfrastructureError, match="does not answer"):
        run(farm, "a")
    assert len(calls) == 1


def test_a_scheduler_that_falls_silent_is_lost(run, monkeypatch):
    farm = Farm(lambda name, worker: [good(name)])
    workers, silences = farm.workers, iter([True])

    def silent():
        if next(silences, False):
            raise FarmLost
        return workers()

    monkeypatch.setattr(farm, "workers", silent)
    _, ends = run(farm, "a")
    assert ends["a"].exit_code == 0 and farm.connections == 2


def test_a_build_whose_keeper_is_killed_begins_again(run):
    answers = iter([Answered("a", {"code": None, "fault": "gone"}), good("a")])
    _, ends = run(Farm(lambda name, worker: [next(answers)]), "a")
    assert ends["a"].exit_code == 0


def test_a_build_whose_keepers_are_always_killed_is_given_up(run):
    farm = Farm(lambda name, worker: [Answered(name, {"code": None, "fault": "the keeper"})])
    _, ends = run(farm, "a")
    assert ends["a"].exit_code == 5 and "the keeper" in ends["a"].error.brief
    assert len(farm.submitted) == 3


def test_a_worker_that_was_cut_off_is_not_listened_to(run):
    late = Heard("a", "w1", [{"event": "note", "text": "late"}])
    farm = Farm(lambda name, worker: [on("w1", name), late, on("w2", name), late, good(name)])
    seen, _ = run(farm, "a")
    assert seen.lines.count("a late") == 1


def test_a_fault_of_the_farm_is_the_end_of_the_image_and_of_no_other(run):
    def answer(name, worker):
        return [good(name)] if name == "b" else [Answered(name, fault="KilledWorker: 4 times")]

    _, ends = run(Farm(answer), "a", "b")
    assert ends["a"].exit_code == 5 and "KilledWorker" in ends["a"].error.brief
    assert ends["b"].exit_code == 0


def test_with_fail_fast_the_first_failure_cancels_the_others(run):
    def answer(name, worker):
        return [on(worker, name), *([failed(name, 3)] if name == "b" else [])]

    farm = Farm(answer)
    _, ends = run(farm, "a", "b", "c", fail_fast=True)
    assert {name: end.status for name, end in ends.items()} == {"a": "cancelled", "b": "failed"}
    assert farm.cancelled == ["a"]
    assert [name for name, _, _ in farm.submitted] == ["a", "b"]


def test_a_result_that_cannot_be_fetched_is_no_success(run):
    class Lossy(Farm):
        def deliver(self, order, end):
            raise InfrastructureError("the result is damaged")

    _, ends = run(Lossy(lambda name, worker: [good(name)]), "a")
    assert ends["a"].exit_code == 5 and ends["a"].error.brief == "the result is damaged"


def test_a_message_about_a_finished_build_is_ignored(run):
    farm = Farm(lambda name, worker: [good(name), on("w9", name), good(name), Answered(name)])
    _, ends = run(farm, "a", "b")
    assert {end.status for end in ends.values()} == {"passed"}


def test_a_farm_without_fitting_workers_says_why_and_ends(run, monkeypatch):
    farm = Farm(lambda name, worker: [good(name)], ())
    farm.members = {"old": {"vm": 1, "amd64": 1, "particle-os-0.0.1-abc": 1}}
    workers = farm.workers
    monkeypatch.setattr(farm, "workers", lambda: (farm.clock.sleep(100), workers())[1])
    with pytest.raises(InfrastructureError, match=r"old has particle-os-0\.0\.1-abc"):
        run(farm, "a")


def test_a_worker_that_comes_later_gets_the_builds(run, monkeypatch):
    farm = Farm(lambda name, worker: [good(name)], ())
    counts = iter([{}, {}, {"w": resources(1, kvm=False), "v": resources(1, kvm=False)}])

    def workers():
        farm.clock.sleep(20)
        farm.members = next(counts, farm.members)
        return farm.members

    monkeypatch.setattr(farm, "workers", workers)
    seen, ends = run(farm, "a")
    assert ends["a"].exit_code == 0
    assert any("waiting for a worker" in line for line in seen.lines)


def test_an_assignment_travels_as_one_line():
    given = Assignment("a", "k", command=["x", "y\n"], parcel="p", arguments=["--set=a=ü"])
    line = given.encode()
    assert line.count(b"\n") == 1
    assert Assignment.decode(line) == given
    for other in (b"", b"[]", b"{}", json.dumps({"name": "a", "key": "k", "more": 1}).encode()):
        with pytest.raises(ParticleError):
            Assignment.decode(other)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError("the connection is closed"), None),
        (TimeoutError(), None),
        (ValueError("no answer"), "ValueError: no answer"),
    ],
)
def test_an_answer_that_a_scheduler_takes_with_it_is_no_fault_of_the_build(error, fault):
    """The build begins again, as all do that a scheduler has lost."""

    def result(timeout):
        raise error

    link = object.__new__(FarmConnection)
    link._closing, link._inbox = False, queue.SimpleQueue()
    link._answer("a", SimpleNamespace(status="finished", result=result))
    assert link._inbox.get_nowait() == Answered("a", None, fault)

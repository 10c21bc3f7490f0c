"""The agent waits for the network that the host gives a stage."""

import io
import json

import pytest
from particle_agent.agent import cable, channel, runner
from particle_agent.agent.cable import wait_for_cable
from particle_agent.agent.channel import Channel
from particle_agent.agent.failure import FailedStage
from particle_agent.contract import wire
from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.stages.contents.run import Run
from particle_agent.stages.settings.timezone import Timezone

from ...waiting import HANG_SECONDS


@pytest.fixture
def events(monkeypatch, target):
    """The order of the events, of the wait for the cable, and of the run of a stage."""
    seen = []

    class Stream(io.StringIO):
        def write(self, text):
            seen.append(json.loads(text)["type"])

    class Answers:
        def readline(self):
            seen.append("answer")
            return b"{}\n"

    monkeypatch.setattr(channel, "wait_for_cable", lambda: seen.append("cable"))
    monkeypatch.setattr(runner, "run_stage", lambda stage, target: seen.append("run"))
    monkeypatch.setattr(target, "end_programs", lambda: seen.append("strays killed"))
    return seen, Channel(Stream(), Answers())


def run(stage, target, to_host):
    runner._run_in_turn(0, stage, target, to_host)


def test_a_stage_starts_after_the_host_has_set_its_network(events, target):
    seen, to_host = events
    run(Run(command=("a",)), target, to_host)
    assert seen[:4] == ["stage-started", "answer", "cable", "run"]


def test_the_strays_of_a_stage_die_before_the_host_hears_of_its_end(events, target):
    seen, to_host = events
    run(Run(command=("a",)), target, to_host)
    assert seen[4:] == ["strays killed", "stage-finished"]


def test_the_strays_of_a_stage_that_fails_die_too(events, target, monkeypatch):
    seen, to_host = events

    def fail(stage, target):
        raise StageError("no")

    monkeypatch.setattr(runner, "run_stage", fail)
    with pytest.raises(FailedStage):
        run(Run(command=("a",)), target, to_host)
    assert seen[-1] == "strays killed"


@pytest.mark.parametrize(
    "stage",
    [
        Run(command=("a",), network="none"),
        Run(command=("a",), network=("a.example",)),
        Timezone(zone="UTC"),
    ],
)
def test_a_stage_without_a_network_waits_for_no_cable(events, target, stage):
    seen, to_host = events
    run(stage, target, to_host)
    assert seen[:3] == ["stage-started", "answer", "run"]


def test_a_stage_does_not_start_when_the_host_has_gone(target):
    to_host = Channel(io.StringIO(), io.BytesIO())
    with pytest.raises(EnvironmentFailed, match="the host closed the connection"):
        run(Run(command=("a",)), target, to_host)


def test_the_kernel_needs_a_moment_to_see_the_cable(tmp_path, monkeypatch):
    state = tmp_path / "operstate"
    state.write_text("down\n")
    monkeypatch.setattr(cable.time, "sleep", lambda seconds: state.write_text("up\n"))
    wait_for_cable(state, HANG_SECONDS)
    state.write_text("down\n")
    with pytest.raises(EnvironmentFailed, match="no link"):
        wait_for_cable(state, -1.0)


def test_the_events_that_the_host_answers_are_the_ones_that_the_guest_waits_after(target):
    sent = io.StringIO()
    to_host = Channel(sent, io.BytesIO(b"{}\n"))
    to_host.wait_for_host(wire.Frozen(index=3))
    assert json.loads(sent.getvalue()) == {"type": "frozen", "index": 3}

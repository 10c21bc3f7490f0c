"""The decoding of requests, and the stages that work in advance."""

import json

import pytest
from particle_agent.agent import runner
from particle_agent.contract import wire
from particle_agent.contract.decode import DecodeError, encode
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.timezone import Timezone


def test_only_stages_that_find_the_system_as_it_is_work_ahead(target):
    done = []

    class Noting:
        def __init__(self, name, only_configures):
            self.name, self.only_configures = name, only_configures

        def ahead(self, target):
            done.append(self.name)

    stages = [Noting("users", True), Noting("locale", True), Noting("files", False)]
    runner._do_ahead([*stages, Noting("late", True)], target)
    assert done == ["users", "locale"]


def test_a_request_comes_over_the_wire_as_it_was():
    proxy = wire.AptProxy(url="http://10.0.2.2:3142", https="rewrite", caches=True)
    options = wire.RunOptions(hostname="box", source_date=7, apt_proxy=proxy, checkpoints=True)
    stages = (Timezone(zone="UTC"), Qemu(formats=("raw",), timeout=7200))
    encoded = {"options": encode(options), "stages": [encode(stage) for stage in stages]}
    request = runner.RunRequest.decoded(json.loads(json.dumps(encoded)))
    assert (request.options, request.stages) == (options, stages)


def test_only_a_stage_that_uses_the_name_sees_it():
    stages = (Timezone(zone="UTC"), Qemu(formats=("raw",)))
    request = runner.RunRequest(wire.RunOptions(hostname="box", source_date=7), stages)
    targets = [request.target(index, None) for index in range(2)]
    assert [target.hostname for target in targets] == ["", "box"]
    assert targets[0].source_date == 7


def test_a_stage_works_ahead_with_the_stages_after_it(monkeypatch):
    ahead = []
    monkeypatch.setattr(runner, "_do_ahead", lambda stages, target: ahead.append((stages, target)))
    stages = (Timezone(zone="UTC"), Qemu(formats=("raw",)))
    target = runner.RunRequest(wire.RunOptions(hostname="box"), stages).target(0, None)
    target.ahead()
    assert ahead == [(stages[1:], target)]


def test_a_malformed_request_is_refused():
    with pytest.raises(DecodeError, match="options"):
        runner.RunRequest.decoded({"options": {"hostname": 1}, "stages": []})
    with pytest.raises(DecodeError, match=r"stages\[0\]: unknown type 'no-stage'"):
        runner.RunRequest.decoded({"options": {"hostname": "x"}, "stages": [{"type": "no-stage"}]})

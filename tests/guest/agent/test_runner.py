"""The decoding of requests, and the stages that work in advance."""

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Literal

import pytest
from particle_agent.agent import runner
from particle_agent.agent.failure import FailedStage
from particle_agent.contract import wire
from particle_agent.contract.decode import DecodeError, encode
from particle_agent.errors import NetworkError, StageError
from particle_agent.stages.base import Secret, StageOptions
from particle_agent.stages.contents.run import Run
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.timezone import Timezone
from particle_agent.target import limits
from particle_agent.target.limits import TimeUp


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


@pytest.mark.parametrize("plain", [True, False])
def test_a_stage_of_a_plain_build_knows_it(plain):
    options = wire.RunOptions(hostname="box", plain=plain)
    assert runner.RunRequest(options, (Timezone(zone="UTC"),)).target(0, None).plain is plain


def test_the_limit_of_a_stage_expires_before_that_of_its_commands():
    stages = (Timezone(zone="UTC"), Timezone(zone="UTC", timeout=7200))
    request = runner.RunRequest(wire.RunOptions(hostname="box"), stages)
    limits = [request.target(index, None)._command_seconds for index in range(2)]
    assert limits == [3600, 14400]


def test_the_target_has_the_architecture_that_the_host_names():
    stages = (Timezone(zone="UTC"),)
    for name in ("amd64", "arm64"):
        request = runner.RunRequest(wire.RunOptions(hostname="x", architecture=name), stages)
        target = request.target(0, None)
        assert target.architecture.name == target.at(Path("/")).architecture.name == name
    unknown = wire.RunOptions(hostname="x", architecture="z80")
    with pytest.raises(DecodeError, match="unknown architecture 'z80'"):
        runner.RunRequest(unknown, stages).target(0, None)


def test_a_stage_with_hosts_finds_the_proxy_and_no_other():
    proxy = wire.AptProxy(url="http://10.0.2.2:3142", https="rewrite", caches=True)
    stages = (Run(command=("a",), network=("a.example",)), Run(command=("a",)))
    request = runner.RunRequest(wire.RunOptions(hostname="box", apt_proxy=proxy), stages)
    with_hosts, without = (request.target(index, None) for index in range(2))
    assert (with_hosts.apt_proxy, without.apt_proxy) == (None, proxy)
    assert with_hosts._environment["http_proxy"] == "http://127.0.0.1:3128"
    assert "http_proxy" not in without._environment


@pytest.mark.parametrize(
    ("network", "entered"),
    [(None, []), ("none", ["none"]), ("packages", ["none"]), (("a.example",), ["proxy"])],
)
def test_a_stage_runs_with_the_network_of_its_recipe(target, monkeypatch, network, entered):
    seen = []

    def noting(name):
        @contextmanager
        def enter():
            seen.append(name)
            yield

        return enter

    monkeypatch.setattr(limits, "no_network", noting("none"))
    monkeypatch.setattr(limits, "only_the_proxy", noting("proxy"))
    runner.run_stage(Run(command=("a",), network=network), target)
    assert seen == entered
    assert target.only("env").argv[-1] == "a"


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


class Talk:
    """A channel that records the events, and the answers that the host was asked for."""

    def __init__(self):
        self.sent = []

    def start_stage(self, index, *, network):
        self.sent.append(wire.StageStart(index=index))

    def send(self, event):
        self.sent.append(event)

    def wait_for_host(self, event):
        self.sent.append(event)


@dataclass(frozen=True, kw_only=True)
class Odd(StageOptions):
    """A stage that notes each run, and then fails with `error` if there is one."""

    reads_network: ClassVar[bool] = False
    type: Literal["odd"] = "odd"
    error: BaseException | None = None
    log: list = field(default_factory=list)

    def run(self, target):
        self.log.append("ran")
        if self.error is not None:
            raise self.error


@pytest.fixture
def vm(target, tmp_path, monkeypatch):
    """The parts of the VM around a request: secrets, mounts, and the log of what happened."""
    log = []
    held = tmp_path / "held"
    held.mkdir()
    monkeypatch.setattr(runner.wire, "HELD", str(held))

    @contextmanager
    def noted(name):
        log.append(name)
        yield
        log.append(f"end of {name}")

    monkeypatch.setattr(runner, "mount_scratch", lambda: False)
    monkeypatch.setattr(runner, "mounted_for_chroot", lambda root: noted("mounts"))
    monkeypatch.setattr(runner, "frozen_scratch", lambda: noted("frozen"))
    monkeypatch.setattr(runner, "check_needs", lambda *arguments: log.append("needs"))
    monkeypatch.setattr(runner, "verify", lambda channel, serial: log.append("verified"))
    monkeypatch.setattr(runner.RunRequest, "target", lambda self, index, channel: target)
    monkeypatch.setattr(target, "end_programs", lambda: log.append("programs ended"))
    return SimpleNamespace(log=log, held=held, channel=Talk())


def request(*stages, **options):
    return runner.RunRequest(wire.RunOptions(hostname="box", **options), stages)


def test_a_stage_that_fails_ends_the_request_and_nothing_after_it_runs(vm):
    stages = (Odd(), Odd(error=StageError("it failed")), Odd())
    with pytest.raises(FailedStage, match="it failed") as failed:
        runner.run_stages(request(*stages, checkpoints=True, verify=True), vm.channel)
    assert failed.value.index == 1
    assert (stages[0].log, stages[1].log, stages[2].log) == (["ran"], ["ran"], [])
    kinds = [type(event) for event in vm.channel.sent]
    assert kinds == [wire.StageStart, wire.StageEnd, wire.Frozen, wire.StageStart]
    assert vm.log == [
        "mounts", "needs", "programs ended", "frozen", "end of frozen", "programs ended",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [OSError(5, "an I/O error"), KeyError("x"), StageError("x")])
def test_no_error_of_a_stage_lets_it_pass(vm, error):
    with pytest.raises(FailedStage) as failed:
        runner.run_stages(request(Odd(error=error), Odd()), vm.channel)
    assert (failed.value.index, failed.value.error) == (0, error)
    assert vm.channel.sent == [wire.StageStart(index=0)]


def test_a_request_that_succeeds_keeps_each_state_but_the_last_and_verifies(vm):
    runner.run_stages(request(Odd(), Odd(), checkpoints=True, verify=True), vm.channel)
    ends = [event for event in vm.channel.sent if not isinstance(event, wire.StageStart)]
    assert [type(event) for event in ends] == [wire.StageEnd, wire.Frozen, wire.StageEnd]
    assert ends[1] == wire.Frozen(index=0)
    assert vm.log[-2:] == ["end of mounts", "verified"]


def test_a_request_asks_for_what_it_does(vm):
    runner.run_stages(request(Odd(), Odd()), vm.channel)
    assert not [event for event in vm.channel.sent if isinstance(event, wire.Frozen)]
    assert "verified" not in vm.log


def test_the_time_limit_of_a_stage_fails_the_stage(vm, target, monkeypatch):
    @contextmanager
    def up(seconds):
        assert seconds == 120
        yield
        raise TimeUp

    monkeypatch.setattr(runner, "time_limit", up)
    target.tail.append("last words")
    with pytest.raises(FailedStage, match="did not end within 2m") as failed:
        runner.run_stages(request(Odd(timeout=120)), vm.channel)
    assert type(failed.value.error) is StageError
    assert failed.value.error.tail == ("last words",)
    assert "Raise the stage's 'timeout'" in failed.value.error.hint
    assert vm.channel.sent == [wire.StageStart(index=0)]


@pytest.mark.parametrize(("network", "hint"), [(None, "try later"), ("none", "'network: none'")])
def test_a_stage_without_a_network_cannot_blame_it(vm, monkeypatch, network, hint):
    entered = []

    @contextmanager
    def no_network():
        entered.append("no network")
        yield

    monkeypatch.setattr(limits, "no_network", no_network)
    error = NetworkError("no route to host", hint="try later", tail=["tail"])
    with pytest.raises(FailedStage, match="no route to host") as failed:
        runner.run_stages(request(Odd(error=error, network=network)), vm.channel)
    found = failed.value.error
    assert type(found) is (NetworkError if network is None else StageError)
    assert hint in found.hint
    assert found.tail == ("tail",)
    assert entered == ([] if network is None else ["no network"])


def test_a_stage_has_its_own_secrets_while_it_runs(vm, target, monkeypatch):
    seen = []
    monkeypatch.setattr(Odd, "run", lambda self, target: seen.append(
        {name: target.read(f"/run/secrets/{name}") for name in target.list("/run/secrets")}
    ))  # fmt: skip
    sent = {0: "one", 2: "two"}

    def start_stage(index, *, network):
        assert list(vm.held.iterdir()) == []
        if index in sent:
            (vm.held / sent[index]).write_text(f"value of {sent[index]}")

    monkeypatch.setattr(vm.channel, "start_stage", start_stage)
    stages = [Odd(secrets=(Secret(name="token", file=file),)) for file in sent.values()]
    runner.run_stages(request(stages[0], Odd(), stages[1]), vm.channel)
    assert seen == [{"token": "value of one"}, {}, {"token": "value of two"}]


def test_the_files_of_the_secrets_are_gone_before_a_stage_runs(vm, tmp_path):
    (vm.held / "one").write_bytes(b"value")
    assert runner._take_secrets(vm.held) == {"one": b"value"}
    assert list(vm.held.iterdir()) == []
    assert runner._take_secrets(tmp_path / "none") == {}

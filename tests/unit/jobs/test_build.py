from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_agent.contract import wire
from particle_agent.stages.base import Secret
from particle_agent.stages.contents.run import Run
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.timezone import Timezone
from particle_agent.stages.software.apt import Apt
from particle_os.documents.document import Mark
from particle_os.egress.record import HostRefused, Hosts
from particle_os.errors import DeadlineExceeded, StageFailed, VmError
from particle_os.jobs.build_result import Observations
from particle_os.jobs.execution import stage_results
from particle_os.jobs.execution.conversation import Conversation
from particle_os.jobs.execution.job import GUEST_NOTES_LIMIT, Job
from particle_os.jobs.execution.stage_results import Stages
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan, make_stage_plan
from particle_os.report.progress import Progress
from particle_os.sandbox.verification import FindingResult, Verification
from particle_os.vm.traffic import Traffic

from ...waiting import plenty


def stages(plan, statuses):
    found = Stages(plan, Progress([]))
    for index, status in enumerate(statuses):
        if status != "not-run":
            found.start(index)
        if status == "done":
            found.finish(index, wire.StageEnd(index=index, seconds=1.0))
    assert [result.status for result in found.results] == list(statuses)
    return found


def test_a_stage_that_has_not_ended_is_published_as_failed():
    plan = SimpleNamespace(stages=[Apt(), Apt(), Qemu()])
    found = Stages(plan, Progress([]))
    found.cached([1000.0])
    found.start(1)
    assert [result.status for result in found.results] == ["done", "failed", "not-run"]
    assert found.running(Apt) is plan.stages[1]
    found.finish(1, wire.StageEnd(index=1, seconds=2.5))
    cached, done, _ = found.results
    assert (cached.cached, cached.done_at, cached.seconds) == (True, 1000.0, None)
    assert (done.status, done.cached, done.seconds) == ("done", False, 2.5)
    with pytest.raises(VmError, match="no use for"):
        found.running(Apt)


def test_work_of_the_host_counts_as_time_of_the_stage(clock, monkeypatch):
    monkeypatch.setattr(stage_results, "time", clock)
    plan = SimpleNamespace(stages=[Apt(timeout=30), Qemu()])
    whole, sooner = clock.deadline(100, "the build"), clock.deadline(20, "the build")
    with stages(plan, ("failed", "not-run")).limited(plan.stages[0], whole) as deadline:
        assert deadline.remaining() == 30
    with pytest.raises(DeadlineExceeded, match="the build took longer"):
        with stages(plan, ("failed", "not-run")).limited(plan.stages[0], sooner) as deadline:
            clock.sleep(25)
            deadline.remaining()
    with pytest.raises(StageFailed, match="did not end within 30s"):
        with stages(plan, ("failed", "not-run")).limited(plan.stages[0], whole) as deadline:
            clock.sleep(35)
            deadline.remaining()


def test_a_stage_without_a_timeout_has_the_deadline_of_the_build():
    plan = SimpleNamespace(stages=[Apt(), Qemu()])
    whole = plenty()
    with stages(plan, ("failed", "not-run")).limited(plan.stages[0], whole) as deadline:
        assert deadline is whole


def test_errors_and_results_have_the_names_of_stages():
    places = [Mark(Path("server.yml"), line, 5) for line in (3, 5)]
    plan = SimpleNamespace(
        stages=[Apt(name="Install \u202e it"), Qemu()],
        loaded=SimpleNamespace(places=places),
        options=BuildOptions(),
    )
    found = stages(plan, ("failed", "not-run"))
    error = StageFailed("it failed")
    found.place(error)
    assert error.where == "stage 1 (apt, 'Install \\u202e it'), server.yml:3"
    assert [result.name for result in found.results] == ["Install \u202e it", None]


class Chain:
    """A chain of `count` checkpoints that records the calls of `keep`."""

    asked_network = False

    def __init__(self, count):
        self.stages = count - 1
        self.kept = []

    def keep(self, sandbox, label, *, network):
        self.kept.append((label, network))


class Sandbox:
    """A VM that records whether its cable to the network is in, and the hosts of its proxy."""

    connected = False

    def __init__(self):
        self.taken = 0
        self.hosts = None
        self.agent = self
        self.held = []

    def hold(self, values, deadline):
        self.held.append(values)

    def connect_outside(self, connected, deadline):
        self.connected = connected

    def take_traffic(self):
        self.taken += 1
        return Traffic(names=(f"taken-{self.taken}",))

    def allow_hosts(self, hosts, deadline):
        self.hosts = hosts

    def forbid_hosts(self):
        allowed, self.hosts = self.hosts, None
        refused = HostRefused(host="evil.example", port=80, reason="not-listed", requests=1)
        return Hosts(refused=(refused,)) if allowed else None


def conversation(plan, statuses, chain, sandbox=None):
    job = SimpleNamespace(plan=plan)
    waiting = stages(plan, ["not-run"] * len(statuses))
    found = Conversation(job, waiting, chain, sandbox or Sandbox(), None, None)
    for index, status in enumerate(statuses):
        if status != "not-run":
            found.listen(wire.StageStart(index=index))
        if status == "done":
            found.listen(wire.StageEnd(index=index, seconds=1.0))
    return found


@pytest.mark.parametrize(
    ("statuses", "kept_before", "index"),
    [
        (["failed", "not-run", "not-run"], 1, 0),  # The stage still runs.
        (["done", "not-run", "not-run"], 1, 1),  # Another stage has ended.
        (["done", "not-run", "not-run"], 2, 0),  # The state is already kept.
        (["done", "done", "done"], 3, 2),  # The last stage leaves no checkpoint.
        (["done", "not-run", "not-run"], 1, -1),
        (["done", "not-run", "not-run"], 1, 99),
    ],
)
def test_the_guest_cannot_have_a_state_kept_that_is_not_due(statuses, kept_before, index):
    plan = SimpleNamespace(stages=[Timezone(zone="UTC"), Timezone(zone="UTC"), Qemu()])
    chain = Chain(kept_before)
    heard = conversation(plan, statuses, chain)
    with pytest.raises(VmError):
        heard.listen(wire.Frozen(index=index))
    assert chain.kept == []


def test_the_state_after_the_stage_that_is_due_is_kept():
    plan = SimpleNamespace(stages=[Timezone(zone="UTC"), Qemu()])
    chain = Chain(1)
    heard = conversation(plan, ("done", "not-run"), chain)
    assert heard.listen(wire.Frozen(index=0)) == wire.Continue()
    assert chain.kept == [("timezone", False)]


def test_the_cable_is_in_only_while_a_stage_runs_that_may_use_the_network():
    """The order of the events and the recipe decide, whatever the guest says."""
    plan = SimpleNamespace(
        stages=[
            Run(command=("a",)),
            Run(command=("b",), network="none"),
            Timezone(zone="UTC"),
            Run(command=("c",)),
            Qemu(),
        ]
    )
    sandbox = Sandbox()
    heard = conversation(plan, ["not-run"] * len(plan.stages), Chain(1), sandbox)
    seen = []
    for index in range(len(plan.stages)):
        assert heard.listen(wire.StageStart(index=index)) == wire.Continue()
        seen.append(sandbox.connected)
        heard.listen(wire.StageEnd(index=index, seconds=1.0))
        assert not sandbox.connected
    assert seen == [True, False, False, True, False]


def test_each_stage_has_what_the_vm_reached_while_it_ran():
    plan = SimpleNamespace(stages=[Run(command=("a",)), Timezone(zone="UTC"), Qemu()])
    waiting = stages(plan, ["not-run"] * 3)
    heard = Conversation(SimpleNamespace(plan=plan), waiting, Chain(1), Sandbox(), None, None)
    for index in range(2):
        heard.listen(wire.StageStart(index=index))
        heard.listen(wire.StageEnd(index=index, seconds=1.0))
    names = [result.network and result.network.names for result in waiting.results]
    assert names == [("taken-1",), ("taken-2",), None]


def test_the_proxy_runs_only_while_a_stage_with_hosts_does():
    hosts = ("a.example", "*.b.example:8443")
    plan = SimpleNamespace(
        stages=[
            Run(command=("a",), network=hosts),
            Run(command=("b",), network="none"),
            Timezone(zone="UTC", network=hosts),
            Run(command=("c",), network=hosts[:1]),
            Qemu(),
        ]
    )
    sandbox = Sandbox()
    waiting = stages(plan, ["not-run"] * 5)
    heard = Conversation(SimpleNamespace(plan=plan), waiting, Chain(1), sandbox, None, None)
    seen = []
    for index in range(4):
        assert heard.listen(wire.StageStart(index=index)) == wire.Continue()
        seen.append(sandbox.hosts)
        assert not sandbox.connected
        heard.listen(wire.StageEnd(index=index, seconds=1.0))
        assert sandbox.hosts is None
    assert seen == [hosts, None, None, hosts[:1]]
    found = [bool(result.hosts and result.hosts.refused) for result in waiting.results]
    assert found == [True, False, False, True, False]


def test_a_failure_ends_the_proxy():
    plan = SimpleNamespace(stages=[Run(command=("a",), network=("a.example",)), Qemu()])
    sandbox = Sandbox()
    heard = conversation(plan, ["not-run"] * 2, Chain(1), sandbox)
    heard.listen(wire.StageStart(index=0))
    heard.cut_off()
    assert sandbox.hosts is None


def test_the_vm_gets_the_secrets_of_the_stage_that_begins_and_no_others():
    named = [(Secret(name="token", file=name),) for name in ("one", "two")]
    stages = (
        Run(command=("a",), secrets=named[0]), Run(command=("b",), in_="helper"),
        Run(command=("c",), secrets=named[1]), Qemu(),
    )  # fmt: skip
    values = {"one": b"first value", "two": b"second value"}
    plan = SimpleNamespace(
        stages=stages, secrets_of=lambda stage: {s.file: values[s.file] for s in stage.secrets}
    )
    sandbox = Sandbox()
    heard = conversation(plan, ["not-run"] * 4, Chain(1), sandbox)
    seen = []
    for index in range(4):
        heard.listen(wire.StageStart(index=index))
        # The guest lies about a stage that is not due.
        heard.listen(wire.StageStart(index=index + 2))
        heard.listen(wire.StageEnd(index=index, seconds=1.0))
        seen.append(list(sandbox.held))
        sandbox.held.clear()
    assert seen == [[{"one": b"first value"}], [], [{"two": b"second value"}], []]


@pytest.mark.parametrize(
    "event", [wire.StageStart(index=0), wire.StageEnd(index=0, seconds=1.0)], ids=["start", "end"]
)
def test_a_guest_that_repeats_a_report_is_given_up(event):
    plan = SimpleNamespace(stages=[Timezone(zone="UTC"), Qemu()])
    heard = conversation(plan, ["not-run"] * 2, Chain(1))
    with pytest.raises(VmError, match="more starts and ends"):
        for _ in range(9):
            heard.listen(event)


def test_the_notes_of_a_guest_are_counted(tmp_path):
    shown = []
    sink = SimpleNamespace(emit=lambda event: shown.append(event.text), close=lambda: None)
    job = Job(None, Progress([sink]), None, None, tmp_path)
    for number in range(20_000):
        job.show_output(wire.Notice(text=f"note {number}"))
    job.note("a note of the host")
    assert job.notes == shown
    assert len(job.notes) == GUEST_NOTES_LIMIT + 1
    assert job.notes[-2:] == [
        "the helper VM sends more notes; they are left out", "a note of the host",
    ]  # fmt: skip


@pytest.mark.parametrize("index", [-1, 1, 2, 99])
def test_a_stage_that_is_not_due_gets_no_network(index):
    plan = SimpleNamespace(
        stages=[
            Run(command=("a",), network="none"),
            Run(command=("b",)),
            Run(command=("c",), network=("a.example",)),
            Qemu(),
        ]
    )
    sandbox = Sandbox()
    heard = conversation(plan, ["not-run"] * 4, Chain(1), sandbox)
    heard.listen(wire.StageStart(index=0))
    assert heard.listen(wire.StageStart(index=index)) == wire.Continue()
    assert not sandbox.connected
    assert sandbox.hosts is None


@pytest.mark.parametrize(
    ("kind", "network", "hint"),
    [
        (Run(command=("a",), network="none"), "none", "without '--network none'"),
        (Run(command=("a",), network="none"), None, ""),
        (Timezone(zone="UTC"), "none", ""),
    ],
)
def test_a_stage_that_fails_without_a_network_names_the_option(kind, network, hint):
    plan = SimpleNamespace(
        stages=[kind, Qemu()],
        options=BuildOptions(network=network),
        loaded=SimpleNamespace(places=()),
    )
    error = StageFailed("curl failed with status 6")
    stages(plan, ("failed", "not-run")).place(error)
    assert hint in (error.hint or "")
    assert bool(hint) == bool(error.hint)


def test_a_base_from_one_mirror_lacks_security_updates(tmp_path):
    path = tmp_path / "recipe.yml"
    kernel = "  - {type: apt, packages: [linux-image-amd64, systemd-sysv]}\n"
    theirs = "  - {type: sources, repositories: [{name: a, mirrors: ['http://a'], suites: [b]}]}\n"

    def lacks(stages, **options):
        path.write_text(f"name: x\nstages:\n{stages}  - type: qemu\n")
        return make_plan(path, BuildOptions(output_directory=tmp_path, **options)).lacks_security

    mirror = "http://mirror.example.org/debian"
    assert lacks(kernel, mirror=mirror)
    assert not lacks(kernel)
    assert not lacks(theirs + kernel, mirror=mirror)


@pytest.mark.parametrize(
    "event", [wire.DiskNeeded(size=512, content=0), wire.DiskWritten(size=512)]
)
@pytest.mark.parametrize("statuses", [("failed", "not-run"), ("done", "not-run"), ("done", "done")])
def test_only_the_stage_that_makes_the_disk_can_report_it(event, statuses):
    plan = SimpleNamespace(stages=[Run(script="true"), Qemu()])
    heard = conversation(plan, statuses, Chain(1))
    with pytest.raises(VmError, match="no use for"):
        heard.listen(event)
    with pytest.raises(VmError, match="wrote nothing to the output disk"):
        heard.output()


def test_the_findings_of_a_disk_are_those_of_its_verification():
    assert Observations().findings == ()
    assert Observations().is_sound
    assert Observations().status() == "not-tested"
    finding = FindingResult(code="c", severity="error", place="", message="broken")
    seen = Observations(verification=Verification(seconds=1, findings=(finding,)))
    assert seen.findings == (finding,)
    assert seen.status() == "defective"


@pytest.mark.parametrize("refresh", ["base", None])
@pytest.mark.parametrize("plain", [True, False])
def test_a_plan_looks_for_the_base_that_its_options_ask_for(tmp_path, monkeypatch, refresh, plain):
    asked = []

    def find(reference, relative_to, architecture, cache, **options):
        asked.append((reference, relative_to, architecture, options))

    monkeypatch.setattr("particle_os.jobs.planning.find_base", find)
    path = tmp_path / "recipe.yml"
    kernel = "  - {type: apt, packages: [linux-image-amd64, systemd-sysv]}\n"
    path.write_text(f"name: x\nstages:\n{kernel}  - type: qemu\n")
    mirror = "http://mirror.example.org/debian"
    make_plan(path, BuildOptions(refresh=refresh, plain=plain, mirror=mirror))
    options = {"mirror": mirror, "rebuild": refresh == "base", "plain": plain, "key": None}
    assert asked == [("mmdebstrap:trixie", tmp_path, "amd64", options)]


def test_a_stage_alone_is_planned_on_the_given_base(tmp_path):
    (tmp_path / "o.yml").write_text("zone: UTC\n")
    base = "mmdebstrap:bookworm"
    for export in (True, False):
        plan = make_stage_plan(
            "timezone", tmp_path / "o.yml", BuildOptions(), base=base, export=export
        )
        assert (plan.base_reference, plan.options.base, plan.refresh_from) == (base, base, 0)
        assert len(plan.more) == export

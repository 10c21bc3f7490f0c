"""Each program that must go without shortcuts in a build with --plain gets the user's choice."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.apt.proxy import NO_PROXY
from particle_os.base import bootstrap, suite
from particle_os.jobs import shell
from particle_os.jobs.execution import helper_vms, preparation
from particle_os.jobs.execution.helper_vms import HelperVms
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan
from particle_os.report.progress import Progress
from particle_os.sandbox import running
from particle_os.sandbox.helper import Helper
from particle_os.system.gate import Gate
from particle_os.vm.accel import TCG
from particle_os.vm.console import ConsoleLog

from ...waiting import plenty
from ..base.test_lookup import AMD64, tar
from . import story

HELPER = Helper("key", Path("kernel"), Path("initrd"), Path("root"))
both = pytest.mark.parametrize("plain", [False, True])


class Enough(Exception):
    """Ends the work after the hand-over."""


class HandOver:
    """A stand-in for a function: it remembers its keyword arguments, and then raises Enough."""

    def __init__(self):
        self.options = {}

    def __call__(self, *arguments, **options):
        self.options = options
        raise Enough


@pytest.fixture
def receiver():
    return HandOver()


@pytest.fixture
def make_job(tmp_path):
    """Makes a job; its base is a suite's that must be made first."""

    def make(plain):
        (tmp_path / "base.tar").write_bytes(tar(usr__bin__ls=AMD64))
        (tmp_path / "server.yml").write_text(story.RECIPE)
        options = BuildOptions(output_directory=tmp_path, plain=plain)
        plan = make_plan(tmp_path / "server.yml", options)
        plan = replace(plan, helper=HELPER, base=None, base_reference="mmdebstrap:trixie")
        return SimpleNamespace(
            plan=plan, progress=Progress([]), transcript=ConsoleLog(tmp_path / "console", Gate()),
            work=SimpleNamespace(path=tmp_path), show_output=print, note=print,
        )  # fmt: skip

    return make


@both
def test_the_helper_vm_boots_in_a_plain_build(make_job, receiver, monkeypatch, plain):
    monkeypatch.setattr(helper_vms, "running_sandbox", receiver)
    vms = HelperVms(make_job(plain), HELPER, TCG, plenty())
    with pytest.raises(Enough), vms.start("stages", Path("output")):
        pass
    assert receiver.options["plain"] is plain


@pytest.mark.parametrize("saves", [False, True])
def test_the_helper_vm_saves_its_memory_as_the_user_says(make_job, receiver, monkeypatch, saves):
    monkeypatch.setattr(helper_vms, "running_sandbox", receiver)
    job = make_job(False)
    job.plan = replace(job.plan, options=replace(job.plan.options, save_memory=saves))
    with pytest.raises(Enough), HelperVms(job, HELPER, TCG, plenty()).start("x", Path("output")):
        pass
    assert receiver.options["save_memory"] is saves


@both
def test_the_base_of_a_plain_build_is_made_plainly(make_job, receiver, monkeypatch, plain):
    monkeypatch.setattr(preparation, "ensure_suite", receiver)
    job = make_job(plain)
    with pytest.raises(Enough):
        preparation._make_base(job, HelperVms(job, HELPER, TCG, plenty()), NO_PROXY)
    assert receiver.options["plain"] is plain


@both
def test_the_disk_of_a_plain_base_has_no_database(tmp_path, receiver, monkeypatch, plain):
    @contextmanager
    def open_sandbox(*more):
        yield SimpleNamespace(packages=Path("packages"))

    @contextmanager
    def fetching(*more):
        yield str

    monkeypatch.setattr(bootstrap, "_fetching", fetching)
    monkeypatch.setattr(bootstrap, "write_disk", receiver)
    with (
        pytest.raises(Enough),
        bootstrap.bootstrapped(
            "trixie", None, "amd64", directory=tmp_path / "files", open_sandbox=open_sandbox,
            listen=print, log=print, deadline=plenty(), proxy=NO_PROXY, plain=plain,
        ),
    ):  # fmt: skip
        pass
    assert receiver.options["database"] is not plain


@both
def test_the_base_of_a_plain_suite_is_bootstrapped_plainly(tmp_path, receiver, monkeypatch, plain):
    monkeypatch.setattr(suite, "bootstrapped", receiver)
    with pytest.raises(Enough):
        suite.ensure_suite(
            "trixie", mirror=None, architecture="amd64", rebuild=False, cache=tmp_path,
            work=SimpleNamespace(path=tmp_path), open_sandbox=None, finished=print, listen=print,
            log=print, note=print, proxy=NO_PROXY, plain=plain,
        )  # fmt: skip
    assert receiver.options["plain"] is plain


@both
def test_a_plain_sandbox_starts_without_saved_memory(tmp_path, receiver, monkeypatch, plain):
    monkeypatch.setattr(running, "start", receiver)
    monkeypatch.setattr(running, "make_disk", lambda *more, what: None)
    (tmp_path / "root").touch()
    sandbox = running.running_sandbox(
        replace(HELPER, root=tmp_path / "root"), TCG, running.Resources(1 << 30, 1, 1 << 30),
        directory=tmp_path / "vm", output=tmp_path / "output",
        transcript=ConsoleLog(tmp_path / "console", Gate()), deadline=plenty(), plain=plain,
        note=print,
    )  # fmt: skip
    with pytest.raises(Enough), sandbox:
        pass
    assert receiver.options["plain"] is plain


@both
def test_the_agent_of_a_plain_build_is_told(world, monkeypatch, plain):
    told = []
    run = story.Agent.run

    def remember(agent, stages, **options):
        told.append(options["plain"])
        run(agent, stages, **options)

    monkeypatch.setattr(story.Agent, "run", remember)
    story.built(world, plain=plain)
    assert told == [plain]


@both
def test_the_helper_vm_of_a_plain_shell_boots(make_job, receiver, monkeypatch, plain):
    plan = replace(make_job(plain).plan, base=SimpleNamespace())
    monkeypatch.setattr(shell, "running_sandbox", receiver)
    monkeypatch.setattr(Helper, "is_intact", lambda helper: True)
    monkeypatch.setattr(shell, "_state", lambda *more, **options: [])
    monkeypatch.setattr(shell, "_described", lambda chain: "is here")
    monkeypatch.setattr(type(plan), "keys", lambda plan, base, helper: [])
    with pytest.raises(Enough):
        shell.enter(plan, TCG, Progress([]), at=None, failed=False, apt_indexes=False)
    assert receiver.options["plain"] is plain

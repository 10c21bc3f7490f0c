"""The cache can be damaged: a note or an error names the damaged part."""

import hashlib
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace

import pytest
from particle_os.base.model import TarBase
from particle_os.errors import InfrastructureError, VmError
from particle_os.jobs import shell
from particle_os.jobs.execution import preparation
from particle_os.jobs.execution.run import Execution
from particle_os.report.progress import Progress
from particle_os.sandbox import agent, starting
from particle_os.sandbox.helper import Helper
from particle_os.shortcuts import saved_memory
from particle_os.vm.accel import TCG
from particle_os.vm.argv import DirectBoot, Disk, MachineSpec

from ...waiting import plenty


@pytest.fixture
def spec(tmp_path):
    for name in ("kernel", "initrd", "root"):
        (tmp_path / name).write_text("")
    return MachineSpec(
        accelerator="tcg",
        memory=1 << 30,
        cpus=1,
        disks=(Disk(tmp_path / "root", "raw", "root"),),
        direct_boot=DirectBoot(tmp_path / "kernel", tmp_path / "initrd", "quiet"),
    )


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (
            b"damaged",
            ["the saved state of the helper VM is damaged: the VM starts without its saved state"],
        ),
        (
            b"x" + hashlib.sha256(b"x").digest(),
            ["QEMU does not read it: the VM starts without its saved state"],
        ),
        (None, []),
    ],
)
def test_a_saved_state_that_is_of_no_use_is_told(tmp_path, monkeypatch, spec, content, notes):
    def refuse(*arguments, **options):
        raise VmError("enough")

    def restore(descriptor, deadline):
        raise VmError("QEMU does not read it")

    machine = SimpleNamespace(monitor=SimpleNamespace(restore=restore))
    monkeypatch.setattr(saved_memory, "running", lambda *a, **o: nullcontext(machine))
    monkeypatch.setattr(saved_memory, "save", refuse)
    monkeypatch.setattr(starting, "running", refuse)
    told = []
    (tmp_path / "vm").mkdir()
    places = starting.Places(tmp_path / "vm", tmp_path / "log", tmp_path / "warm", told.append)
    state = saved_memory.state_path(places.states, starting._to_be_saved(spec), "x")
    state.parent.mkdir()
    if content is not None:
        state.write_bytes(content)
    with ExitStack() as stack, pytest.raises(VmError, match="enough"):
        starting.start(spec, agent.pack(), "x", places, stack, plenty())
    assert told == notes
    assert not state.exists()


@pytest.mark.parametrize("content", [b"good", b"bad!"])
def test_a_damaged_base_is_told_before_it_is_made_again(tmp_path, monkeypatch, content):
    tarball = tmp_path / "base.tar.zst"
    tarball.write_bytes(content)
    digest = f"sha256:{hashlib.sha256(b'good').hexdigest()}"
    notes = []
    base = TarBase("mmdebstrap:trixie", tarball, digest)
    job = SimpleNamespace(
        plan=SimpleNamespace(
            base=base,
            base_reference=base.reference,
            options=SimpleNamespace(mirror=None, rebuilds_base=False, plain=False),
            loaded=SimpleNamespace(recipe=SimpleNamespace(architecture="amd64")),
        ),
        progress=Progress([]), note=notes.append, work=None, show_output=print,
    )  # fmt: skip
    made = SimpleNamespace()
    monkeypatch.setattr(preparation, "ensure_suite", lambda suite, **options: made)
    used = preparation._make_base(job, SimpleNamespace(start=None, deadline=plenty()), None)
    damaged = content != b"good"
    assert used is (made if damaged else base)
    told = ["the base image mmdebstrap:trixie in the cache is damaged"]
    assert notes == (told if damaged else [])


@pytest.mark.parametrize("damaged", [True, False])
def test_damaged_layers_are_told_before_they_are_fetched(damaged):
    notes, fetched = [], []
    base = SimpleNamespace(
        drop_damaged=lambda: damaged,
        is_here=lambda: not damaged,
        fetch=lambda work, deadline, progress: fetched.append(work),
    )
    job = SimpleNamespace(note=notes.append, work="work")
    run = SimpleNamespace(
        chain=SimpleNamespace(layers=[]), base=base, job=job, progress=Progress([]), deadline=None
    )
    Execution.fetch_base(run)
    assert any("damaged in the cache" in note for note in notes) is damaged
    assert fetched == (["work"] if damaged else [])


def test_no_shell_opens_in_a_damaged_helper(tmp_path):
    (tmp_path / "root").write_text("changed")
    helper = Helper("key", tmp_path / "kernel", tmp_path / "initrd", tmp_path / "root")
    plan = SimpleNamespace(helper=helper, base="base", template=SimpleNamespace(name="trixie"))
    with pytest.raises(InfrastructureError, match="helper VM trixie in the cache is damaged"):
        shell.enter(plan, TCG, Progress([]), at=None, failed=False, apt_indexes=False)

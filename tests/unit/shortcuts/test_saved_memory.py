"""Saved states of virtual machines, as files."""

import hashlib
from contextlib import ExitStack

import pytest
from particle_os.errors import ParticleError, VmError
from particle_os.jobs import cache
from particle_os.sandbox import agent, running, starting
from particle_os.sandbox.helper import Helper
from particle_os.shortcuts import saved_memory
from particle_os.system.gate import Gate
from particle_os.vm.accel import TCG
from particle_os.vm.argv import DirectBoot, Disk, MachineSpec
from particle_os.vm.console import ConsoleLog

from ...waiting import plenty

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def state(tmp_path):
    (tmp_path / "warm").mkdir()
    path = tmp_path / "warm" / "key.state"
    path.write_bytes(CONTENT + hashlib.sha256(CONTENT).digest())
    return path


def test_a_state_is_what_was_saved(state, tmp_path):
    assert saved_memory.intact(state)
    assert cache.damaged(tmp_path) == []


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1],
    lambda data: data[:40],
    lambda data: data[:10],
    lambda data: b"",
    lambda data: data + b"x",
    lambda data: data[:70_000] + b"!" + data[70_001:],
    lambda data: data[:-1] + bytes([data[-1] ^ 1]),
])  # fmt: skip
def test_a_damaged_state_is_reported(state, tmp_path, damage):
    state.write_bytes(damage(state.read_bytes()))
    assert not saved_memory.intact(state)
    assert [entry.name for entry in cache.damaged(tmp_path)] == ["key"]


def test_what_is_no_state_is_damaged(state, tmp_path):
    state.unlink()
    state.mkdir()
    assert [entry.name for entry in cache.damaged(tmp_path)] == ["key"]


@pytest.mark.parametrize("option", [{"plain": True}, {"save_memory": False}])
def test_a_start_that_does_not_save_boots_and_leaves_what_is_saved(tmp_path, monkeypatch, option):
    booted = []

    def boot(spec, *, directory, transcript, deadline):
        assert starting.PREHEAT not in spec.direct_boot.command_line
        booted.append(spec)
        raise VmError("enough")

    monkeypatch.setattr(starting, "running", boot)
    monkeypatch.setattr(saved_memory, "save", None)
    monkeypatch.setattr(saved_memory, "restored", None)
    for name in ("kernel", "initrd", "root"):
        (tmp_path / name).write_text("")
    spec = MachineSpec(
        accelerator="tcg",
        memory=1 << 30,
        cpus=1,
        disks=(Disk(tmp_path / "root", "raw", "root"),),
        direct_boot=DirectBoot(tmp_path / "kernel", tmp_path / "initrd", "quiet"),
    )
    (tmp_path / "vm").mkdir()
    places = starting.Places(tmp_path / "vm", tmp_path / "console", tmp_path / "warm", print)
    saved = starting._to_be_saved(spec)
    assert saved.direct_boot.command_line == f"quiet{starting.PREHEAT}"
    content = "x" if "plain" in option else "another one"
    kept = saved_memory.state_path(places.states, saved, "x")
    kept.parent.mkdir()
    kept.touch()
    with ExitStack() as stack, pytest.raises(VmError, match="enough"):
        starting.start(spec, agent.pack(), content, places, stack, plenty(), **option)
    assert booted
    assert list(kept.parent.iterdir()) == [kept]


def test_memory_that_is_saved_is_used_also_by_a_build_that_saves_none(tmp_path, monkeypatch):
    places = starting.Places(tmp_path, tmp_path / "console", tmp_path / "warm", print)
    used = []

    def restored(spec, state, **more):
        used.append(state)
        raise ParticleError("enough")

    monkeypatch.setattr(starting, "_to_be_saved", lambda spec: spec)
    monkeypatch.setattr(saved_memory, "state_path", lambda *of: tmp_path / "state")
    monkeypatch.setattr(saved_memory, "restored", restored)
    (tmp_path / "state").touch()
    with ExitStack() as stack, pytest.raises(ParticleError, match="enough"):
        starting.start(None, None, "x", places, stack, plenty(), save_memory=False)
    assert used == [tmp_path / "state"]


def test_a_state_belongs_to_the_files_of_one_helper(tmp_path, monkeypatch):
    """A helper that is rebuilt from other packages has the same path and another content."""
    asked = []

    def start(spec, program, content, *more, plain, save_memory):
        asked.append(content)
        root, scratch, _, packages = spec.disks
        assert (scratch.serial, scratch.backing) == ("scratch", (tmp_path / "layer",))
        assert (packages.serial, root.read_only, packages.read_only) == ("packages", True, True)
        raise VmError("enough")

    monkeypatch.setattr(running, "start", start)
    monkeypatch.setattr(running, "make_disk", lambda *more, what: None)
    helper = Helper("key", tmp_path / "kernel", tmp_path / "initrd", tmp_path / "root")
    for number, content in enumerate(["one", None, "another one"]):
        if content:
            helper.root.write_text(content)
        with (
            pytest.raises(VmError, match="enough"),
            running.running_sandbox(
                helper,
                TCG,
                running.Resources(1 << 30, 1, 1 << 30),
                directory=tmp_path / f"vm{number}",
                output=tmp_path / "output",
                transcript=ConsoleLog(tmp_path / "console", Gate()),
                deadline=plenty(),
                note=print,
                layers=[tmp_path / "layer"],
            ),
        ):
            pass  # fmt: skip
    assert asked[0] == asked[1] != asked[2]

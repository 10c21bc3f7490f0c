"""No signal cuts a step that must be whole: it would leave a program, a file or a lock behind."""

import os
import pty
import subprocess

import pytest
from particle_os.system import interrupt, process, publication, terminal, workspace
from particle_os.system.gate import Gate
from particle_os.system.publication import Change
from particle_os.vm import machine
from particle_os.vm.argv import MIB, MachineSpec
from particle_os.vm.console import ConsoleLog, QemuEnded

from ...waiting import HANG_SECONDS


@pytest.fixture
def held(monkeypatch):
    """Wraps a function; the list says of each call whether signals are held back."""

    def watch(owner, name):
        seen, plain = [], getattr(owner, name)

        def noting(*arguments, **options):
            seen.append(interrupt._State.held > 0)
            return plain(*arguments, **options)

        monkeypatch.setattr(owner, name, noting)
        return seen

    return watch


def test_the_start_and_the_end_of_a_program(held):
    start, end = held(subprocess, "Popen"), held(process, "_signal_group")
    with process.started(["true"]) as program:
        process.wait(program, HANG_SECONDS)
    assert start == [True]
    assert end == [True]


def test_the_start_and_the_end_of_qemu(held, tmp_path, monkeypatch, soon):
    start, end = held(machine, "Console"), held(os, "kill")
    transcript = ConsoleLog(tmp_path / "console.log", Gate())
    spec = MachineSpec(accelerator="tcg", memory=64 * MIB, cpus=1, disks=())
    monkeypatch.setattr(machine, "qemu_argv", lambda spec: ["false"])
    with pytest.raises(QemuEnded):
        with machine.running(spec, directory=tmp_path, transcript=transcript, deadline=soon):
            pass
    assert start == [True]
    assert end and all(end)


def test_the_switch_of_a_publication(held, tmp_path):
    staging = tmp_path / ".staging"
    staging.mkdir()
    (staging / "a").write_text("x")
    finish = held(publication, "_finish")
    publication.publish(staging, tmp_path, Change(["a"], sums={}))
    assert finish == [False, True]
    assert (tmp_path / "a").read_text() == "x"


def test_the_replacement_of_a_file(held, tmp_path):
    written = held(publication.os, "fsync")
    publication.replace(tmp_path / "a", b"x")
    assert written == [True]


def test_the_beginning_and_the_removal_of_a_workspace(held):
    made, removed = held(workspace.tempfile, "mkdtemp"), held(workspace, "remove_directories")
    with workspace.workspace():
        assert removed == []
    assert (made, removed) == ([True], [True])


def test_the_loan_of_a_terminal(held):
    _, program = pty.openpty()
    lent, ended = held(terminal.tty, "setraw"), held(subprocess.Popen, "communicate")
    with terminal.raw(program):
        pass
    assert lent == [True]
    assert ended == [True, True]

import errno
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from typing import ClassVar

import pytest
from particle_os.errors import (
    DeadlineExceeded,
    InfrastructureError,
    Interrupted,
    NotEnoughSpace,
)
from particle_os.system import interrupt, process
from particle_os.system.confinement import FAILED, Confinement

from ...waiting import DeadlineWhen, is_running, plenty, until


def run(*argv, deadline=None, **options):
    return process.run(argv, deadline=deadline or plenty(), what="the work", **options)


def wait_until_gone(pid):
    return until(lambda: not is_running(pid))


def test_the_last_lines_come_back_and_every_line_is_logged():
    lines = []
    tail = run("sh", "-c", "seq 30; echo error >&2", log=lines.append)
    assert lines == [*map(str, range(1, 31)), "error"]
    assert tail == tuple(lines[-process.TAIL_LINES :])


def test_a_failing_command_is_shown_so_that_it_can_be_pasted(tmp_path):
    script = "echo it is broken; exit 3"
    with pytest.raises(InfrastructureError, match=r"the work failed \(status 3\)") as failed:
        run("sh", "-c", script, "an argument", "it's; $(id)", tmp_path / "a path")
    pasted = shlex.split(failed.value.brief.partition("): ")[2])
    assert pasted == ["sh", "-c", script, "an argument", "it's; $(id)", str(tmp_path / "a path")]
    assert failed.value.tail == ("it is broken",)


def test_death_by_a_signal_is_a_failure():
    with pytest.raises(InfrastructureError, match="status -9"):
        run("sh", "-c", "kill -9 $$")


def test_a_program_is_another_one_when_its_file_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "tool"
    with pytest.raises(InfrastructureError, match="'tool' is not installed"):
        process.identity("tool")

    def written(path, text, time):
        path.write_text(text)
        path.chmod(0o755)
        os.utime(path, ns=(0, time))
        return process.identity("tool")

    first = written(program, "1.0", 5)
    assert written(program, "1.0", 5) == first
    assert len({first, written(program, "1.0", 6), written(program, "1.10", 5)}) == 3
    # A wrapper at one place may lead to one version after the other.
    program.unlink()
    program.symlink_to("tool-1.0")
    assert written(tmp_path / "tool-1.0", "1.0", 5) != first


def test_a_program_tells_its_version_in_its_first_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "tool"
    program.write_text('#!/bin/sh\necho "$0 $*"\necho "Copyright"\n')
    program.chmod(0o755)
    assert process.version("tool") == f"{program} --version"


def test_a_missing_program_is_named():
    with pytest.raises(InfrastructureError, match="'no-such-program' is not installed") as told:
        run("no-such-program")
    assert "doctor" in told.value.hint


def begun(*argv, **options):
    return process.begun(argv, deadline=plenty(), what="the work", **options)


def test_something_else_is_done_while_a_program_runs(tmp_path):
    """The program ends only after the other one; its caller sees its exit status."""
    script = 'while [ ! -e "$0" ]; do sleep 0.02; done; echo end; exit "$1"'
    with begun("sh", "-c", script, tmp_path / "done", "0") as finish:
        (tmp_path / "done").touch()
        assert finish() == ("end",)
    with begun("sh", "-c", script, tmp_path / "done", "3") as finish:
        with pytest.raises(InfrastructureError, match=r"the work failed \(status 3\)"):
            finish()


def test_a_program_that_nobody_waits_for_ends_with_its_context():
    lines = []
    script = "echo $$; exec sleep 3600"
    with pytest.raises(RuntimeError), begun("sh", "-c", script, log=lines.append):
        until(lambda: lines)
        raise RuntimeError("the other failed")
    assert wait_until_gone(int(lines[0]))


CHILDREN = {
    "obedient": "sleep 3600 & echo $!; wait",
    "stubborn-leader": "trap '' TERM; sleep 3600 & echo $!; wait",
    "stubborn-child": "(trap '' TERM; exec sleep 3600) & echo $!; wait",
}


@pytest.mark.parametrize("script", CHILDREN.values(), ids=CHILDREN)
def test_the_deadline_ends_the_whole_group(monkeypatch, script):
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.3)
    pids = []
    deadline = DeadlineWhen(passed=lambda: until(lambda: pids))
    with pytest.raises(DeadlineExceeded, match="the work took longer"):
        run("sh", "-c", script, deadline=deadline, log=lambda line: pids.append(int(line)))
    try:
        assert wait_until_gone(pids[0])
    finally:
        with suppress(ProcessLookupError):
            os.kill(pids[0], signal.SIGKILL)


def test_a_program_that_takes_no_hint_is_killed_and_reaped(monkeypatch):
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.1)
    with process.started(["sh", "-c", "trap '' TERM; echo; sleep 3600"]) as running:
        running.stdout.readline()
    assert running.returncode == -signal.SIGKILL


def test_a_child_whose_controller_has_ended_runs_nothing():
    prepare = process.child_of_ours(signal.SIGTERM, process.NO_FILES, "true")
    if not (child := os.fork()):
        # Its own child has another parent than the process that has called child_of_ours.
        if not os.fork():
            prepare()
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == FAILED


def test_a_deadline_in_the_past_runs_nothing_on():
    with pytest.raises(DeadlineExceeded):
        run("sleep", "3600", deadline=DeadlineWhen(passed=lambda: True))


def test_a_child_does_not_outlive_a_killed_controller():
    code = """
from particle_os.system import process
from particle_os.system.deadline import Deadline
process.run(["sh", "-c", "echo $$; exec sleep 3600"], deadline=Deadline.after(3600, "x"), what="x",
            log=lambda line: print(line, flush=True))
"""
    controller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(controller.stdout.readline())
    assert is_running(pid)
    controller.kill()
    controller.wait()
    controller.stdout.close()
    assert wait_until_gone(pid)


def test_output_that_is_no_text_does_no_harm():
    assert run("printf", r"a\377b\n") == ("a\ufffdb",)


def test_a_program_gets_the_variables_that_are_named(soon, monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    argv = ["sh", "-c", 'echo "$NAMED$TOKEN"']
    named = {"NAMED": "value"}
    assert process.capture(argv, deadline=soon, what="it", limit=9, env=named) == b"value\n"
    assert process.capture(argv, deadline=soon, what="it", limit=9) == b"\n"


def test_complaints_that_are_no_text_do_no_harm(soon):
    argv = ["sh", "-c", r"printf 'a\377b\n' >&2; exit 3"]
    with pytest.raises(InfrastructureError, match=r"failed \(status 3\)") as failed:
        process.capture(argv, deadline=soon, what="it", limit=9)
    assert tuple(failed.value.tail) == ("a\ufffdb",)


def test_nothing_waits_for_the_keyboard():
    assert run("cat") == ()


def test_a_full_disk_is_named_with_its_place_and_the_free_bytes(tmp_path, soon):
    script = "echo a mirror cannot be reached; head -c 9 /dev/zero >/dev/full"
    within = Confinement(writes=(tmp_path,))
    with pytest.raises(NotEnoughSpace, match=r"step: no space left in \S+; \d+ bytes") as caught:
        process.run(["sh", "-c", script], deadline=soon, what="step", within=within)
    assert str(tmp_path) in caught.value.brief
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_a_full_disk_is_noticed_however_much_a_program_prints_afterwards(soon):
    script = "head -c 9 /dev/zero >/dev/full; seq 100; exit 1"
    with pytest.raises(NotEnoughSpace, match="a disk of the host is full"):
        process.run(["sh", "-c", script], deadline=soon, what="step")


def test_a_program_that_succeeds_may_speak_of_full_disks(soon):
    text = "No space left on device"
    assert process.run(["echo", text], deadline=soon, what="step") == (text,)


def test_a_log_that_cannot_be_written_holds_no_program_up(soon):
    """The program prints more than a pipe holds; the error of the log comes after its end."""
    lines = []

    def log(line):
        lines.append(line)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        process.run(["seq", "100000"], deadline=soon, what="counting", log=log)
    assert lines == ["1"]


class Signalled(subprocess.Popen):
    """A program; a signal reaches the controller as soon as it has started."""

    started: ClassVar[list[subprocess.Popen]] = []

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        Signalled.started.append(self)
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def interruptible(signals_restored, monkeypatch):
    alarm = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    interrupt.install()
    yield
    signal.signal(signal.SIGALRM, alarm)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_at_the_start_of_a_program_leaves_no_program(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Signalled)
    with pytest.raises(Interrupted), process.started(["sleep", "3600"]):
        raise AssertionError
    assert Signalled.started.pop().returncode is not None


@pytest.mark.usefixtures("interruptible")
def test_a_signal_while_a_program_is_ended_leaves_no_program(monkeypatch):
    def interrupted_wait(running, seconds):
        os.kill(os.getpid(), signal.SIGTERM)
        return wait(running, seconds)

    wait = process.wait
    monkeypatch.setattr(process, "wait", interrupted_wait)
    with pytest.raises(Interrupted), process.started(["sleep", "3600"]) as running:
        pass
    assert running.returncode == -signal.SIGTERM

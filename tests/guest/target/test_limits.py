"""Time limits and the absence of a network, tested with real processes."""

import contextlib
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from particle_agent.agent import runner
from particle_agent.errors import CommandFailed, EnvironmentFailed, StageError
from particle_agent.stages.base import StageOptions
from particle_agent.stages.software.apt import Apt
from particle_agent.target.limits import TimeUp

from ...waiting import HANG_SECONDS, is_running, until

pytestmark = pytest.mark.slow


def in_a_process(code, *before):
    """Runs Python code in a new process, because alarms and namespaces belong to a process."""
    return subprocess.run(
        [*before, sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def test_a_time_limit_ends_commands_with_all_that_they_started():
    done = in_a_process("""
        import signal
        from particle_agent.target import command
        from particle_agent.target.limits import TimeUp, time_limit

        def emit(process):
            print(process)
            signal.setitimer(signal.ITIMER_REAL, 0.1)

        try:
            with time_limit(3600):
                argv = ["sh", "-c", "setsid sleep 3600 & echo $!; sleep 3600"]
                command.run(argv, emit=emit, timeout=3600)
        except TimeUp:
            print("up")
    """)
    left, up = done.stdout.split()
    assert up == "up"
    until(lambda: not is_running(int(left)))


def test_a_time_limit_ends_what_runs_no_command_too():
    done = in_a_process("""
        from particle_agent.target.limits import TimeUp, time_limit
        try:
            with time_limit(1):
                while True:
                    try:
                        sum(range(1000))
                    except Exception:
                        pass
        except TimeUp:
            print("up")
    """)
    assert done.stdout == "up\n"


def test_a_time_limit_that_is_not_reached_leaves_nothing_behind():
    done = in_a_process("""
        import signal
        from particle_agent.target.limits import time_limit
        before = signal.getsignal(signal.SIGALRM)
        with time_limit(3600):
            pass
        with time_limit(None):
            pass
        print(signal.getsignal(signal.SIGALRM) is before, signal.getitimer(signal.ITIMER_REAL))
    """)
    assert done.stdout == "True (0.0, 0.0)\n"


@dataclass(frozen=True, kw_only=True)
class Slow(StageOptions):
    """A stage whose time is up before it runs."""

    reads_network: ClassVar[bool] = False
    type: Literal["slow"] = "slow"

    def run(self, target):
        raise AssertionError


def test_the_end_of_its_time_is_the_failure_of_a_stage(target, monkeypatch):
    def up(seconds):
        raise TimeUp

    monkeypatch.setattr(runner, "time_limit", up)
    target.tail.append("last words")
    with pytest.raises(StageError, match="did not end within 2m") as raised:
        runner.run_stage(Slow(timeout=120), target)
    assert not isinstance(raised.value, EnvironmentFailed)
    assert raised.value.tail == ("last words",)


def test_a_mirror_that_may_not_be_reached_is_the_recipes_fault(target, monkeypatch):
    monkeypatch.setattr(runner, "network_limit", contextlib.nullcontext)

    def fail(command):
        raise CommandFailed(command.argv, 100, ["E: Could not resolve 'mirror.example.org'"])

    target.write("/usr/bin/apt-get", "")
    target.when("apt-get", fail)
    with pytest.raises(EnvironmentFailed):
        runner.run_stage(Apt(), target)
    with pytest.raises(StageError) as raised:
        runner.run_stage(Apt(network="none"), target)
    assert not isinstance(raised.value, EnvironmentFailed)
    assert "network: none" in raised.value.hint
    with pytest.raises(StageError) as raised:
        runner.run_stage(Apt(network=("a.example", "b.example:8443")), target)
    assert "only these hosts: a.example, b.example:8443." in raised.value.hint


def may_make_namespaces():
    argv = ["unshare", "--user", "--map-root-user", "--net", "true"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_make_namespaces(), reason="tests/vm tries it in the VM")
def test_without_a_network_there_is_a_loopback_and_nothing_else():
    done = in_a_process(
        """
        import os, socket, subprocess
        from particle_agent.target.limits import no_network

        def devices():
            text = subprocess.run(["cat", "/proc/net/dev"], capture_output=True).stdout
            return sorted(line.split()[0] for line in text.splitlines()[2:])

        before = os.readlink("/proc/self/ns/net")
        with no_network():
            print(devices(), os.readlink("/proc/self/ns/net") != before)
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname(), 5).close()
            try:
                socket.create_connection(("192.0.2.1", 80), 5)
            except OSError as error:
                print(error.strerror)
        print(os.readlink("/proc/self/ns/net") == before)
        """,
        "unshare", "--user", "--map-root-user", "--net",
    )  # fmt: skip
    assert done.stdout.splitlines() == [*("[b'lo:'] True", "Network is unreachable", "True")]


@pytest.mark.skipif(not may_make_namespaces(), reason="tests/vm tries it in the VM")
def test_a_command_of_the_vm_gets_its_own_processes_without_a_network_too():
    done = in_a_process(
        """
        from particle_agent.stages.contents.run import ISOLATED
        from particle_agent.target import command
        from particle_agent.target.limits import no_network

        # A container may forbid a new /proc.
        argv = [*(word for word in ISOLATED if word != "--mount-proc"), "sh", "-c", "echo $$"]
        with no_network():
            command.run(argv, emit=print, timeout=99)
        """,
        "unshare", "--user", "--map-root-user", "--net",
    )  # fmt: skip
    assert done.stdout == "1\n", done.stderr

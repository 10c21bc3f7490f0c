"""A farm on this machine starts in time, or says that it does not; its scheduler has no secret."""

import subprocess
import sys

import pytest
from particle_os.errors import DeadlineExceeded, InfrastructureError
from particle_os.fleet.farm.client import local


def first_line(code):
    argv = [sys.executable, "-c", f"import os, sys, time\n{code}"]
    with local._started(argv, subprocess.PIPE, local._of_scheduler()) as running:
        return local._first_line(running)


def test_a_scheduler_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(local, "START_SECONDS", 0.2)
    with pytest.raises(DeadlineExceeded, match="the start of the scheduler"):
        first_line("time.sleep(20); print('late')")


def test_a_scheduler_that_says_half_a_line_is_given_up(monkeypatch):
    monkeypatch.setattr(local, "START_SECONDS", 0.2)
    with pytest.raises(DeadlineExceeded, match="the start of the scheduler"):
        first_line("sys.stdout.write('tls://'); sys.stdout.flush(); time.sleep(20); print('late')")


@pytest.mark.parametrize("code", ["pass", "sys.stdout.write('tls://')", "print('x' * 10000)"])
def test_a_scheduler_that_gives_no_address_is_an_error(code):
    with pytest.raises(InfrastructureError, match="did not start"):
        first_line(code)


def test_a_scheduler_gets_no_secret_of_the_environment(monkeypatch):
    monkeypatch.setenv("TOKEN", "canary")
    monkeypatch.setenv("DASK_LOGGING__DISTRIBUTED", "info")
    names = first_line("print(*sorted(os.environ))").split()
    assert "TOKEN" not in names
    assert {"DASK_LOGGING__DISTRIBUTED", "HOME", "PATH"} <= set(names)

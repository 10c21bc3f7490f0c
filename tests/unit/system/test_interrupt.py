"""Ending on a signal, tried on whole processes."""

import random
import signal
import subprocess
import sys
import time

import pytest

from ...waiting import HANG_SECONDS

pytestmark = pytest.mark.slow

START = """
import os, sys, time
from particle_os.cli.command import guarded
from particle_os.system.gate import Gate

def ready():
    print("ready", flush=True)

def last_word():
    sys.stdin.readline()

def action():
{body}

sys.exit(guarded(action, as_json=False, debug=False, gate=Gate()))
"""


def begin(body):
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return subprocess.Popen(
        [sys.executable, "-c", START.format(body=indented)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(body):
    process = begin(body)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_with_its_exit_code(number):
    process = start("ready()\ntime.sleep(3600)")
    process.send_signal(number)
    _, complaint = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 128 + number
    assert complaint == f"error: ended by {number.name}\n"


def test_a_signal_in_a_finaliser_is_not_lost():
    process = start(
        """
class Careless:
    def __del__(self):
        ready()
        time.sleep(3600)

Careless()
time.sleep(3600)
"""
    )
    process.terminate()
    _, complaint = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 143
    assert "Exception ignored" not in complaint


def test_signals_wait_for_a_step_that_must_not_be_cut():
    process = start(
        """
from particle_os.system.interrupt import held_back
with held_back():
    with held_back():
        ready()
        last_word()
    print("whole", flush=True)
print("too far", flush=True)
"""
    )
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate("\n", timeout=HANG_SECONDS)
    assert process.returncode == 130
    assert said == "whole\n"


def test_a_second_signal_does_not_cut_the_cleaning_up_short():
    process = start(
        """
try:
    ready()
    time.sleep(3600)
finally:
    ready()
    last_word()
    print("cleaned", flush=True)
"""
    )
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    said, _ = process.communicate("\n", timeout=HANG_SECONDS)
    assert process.returncode == 130
    assert said == "cleaned\n"


def test_no_moment_of_starting_programs_is_a_bad_one():
    """Forking runs hooks whose exceptions Python ignores, logging's among them."""
    body = """
import logging, threading
from particle_os.system import process
from particle_os.system.deadline import Deadline
ready()
while True:
    process.run(["true"], deadline=Deadline.after(20, "true"), what="true")
"""
    moments = random.Random(1)
    running = [begin(body) for _ in range(5)]
    for process in running:
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.random() / 50)
        process.terminate()
    for process in running:
        _, complaint = process.communicate(timeout=HANG_SECONDS)
        assert process.returncode == 143
        assert complaint == "error: ended by SIGTERM\n"


AFTER = """
import signal, sys, time
from particle_os.cli.command import guarded
from particle_os.system.gate import Gate

def action():
    {action}

code = guarded(action, as_json=False, debug=False, gate=Gate())
print("ready", flush=True)
sys.stdin.readline()
print("alive", flush=True)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("action", "status", "said"),
    [("return 0", -15, ""), ("signal.raise_signal(signal.SIGINT)", 130, "alive\n")],
    ids=["first", "second"],
)
def test_a_signal_after_the_end_makes_no_traceback(action, status, said):
    """The first signal ends the program, as if it had no handler; a later one has no effect."""
    process = subprocess.Popen(
        [sys.executable, "-c", AFTER.format(action=action)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    rest, complaint = process.communicate("\n", timeout=HANG_SECONDS)
    assert "Traceback" not in complaint
    assert (process.returncode, rest) == (status, said)

"""A forked agent takes over the streams of its caller and reports its exit status."""

import subprocess
import sys
from pathlib import Path

import pytest

from ...waiting import HANG_SECONDS

TOP = Path(__file__).parents[3]
# The script takes the streams of its own child, which every kernel permits; a fork reads the
# output.
SCRIPT = """
import os, signal, subprocess, sys
from pathlib import Path
from particle_agent.shortcuts import waiting

def main():
    print(sys.argv, sys.stdin.readline().strip(), flush=True)
    print("a complaint", file=sys.stderr, flush=True)
    if "kill" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    if "raise" in sys.argv:
        raise ValueError("oh")
    return 3

status = Path(sys.argv[1])
os.mkfifo(status)
wait = 'code=$(cat "$0"); echo "status ${code:-none}"'
pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
caller = subprocess.Popen(["sh", "-c", wait, status], **pipes)
if os.fork():
    for pipe in (caller.stdin, caller.stdout, caller.stderr):
        pipe.close()
    waiting.run(caller.pid, status, ["agent.pyz", sys.argv[2]], main)
caller.stdin.write(b"hello\\n")
caller.stdin.close()
print(caller.stdout.read().decode() + caller.stderr.read().decode())
"""


@pytest.mark.parametrize(("verb", "status"), [("run", "3"), ("raise", "1"), ("kill", "none")])
def test_the_caller_gets_the_output_and_the_status(tmp_path, verb, status):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "status", verb],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        cwd=TOP / "guest-agent",
    )
    assert f"['agent.pyz', '{verb}'] hello\n" in done.stdout, done.stderr
    assert f"status {status}\n" in done.stdout
    assert "a complaint\n" in done.stdout
    assert ("ValueError: oh" in done.stdout) == (verb == "raise")

"""A forked agent takes over the streams of its caller and reports its exit status."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from particle_agent.shortcuts import waiting

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


def test_the_kernel_gets_the_random_bytes_and_uses_them_at_once(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(waiting, "RANDOM", tmp_path / "random")
    monkeypatch.setattr(waiting.fcntl, "ioctl", lambda file, *request: asked.append(request))
    seed = bytes(range(64))
    waiting.add_randomness(seed)
    # struct rand_pool_info of linux/random.h: bits, bytes, the bytes.
    mixed = struct.pack("ii", 512, 64) + seed
    assert asked == [(waiting.RNDADDENTROPY, mixed), (waiting.RNDRESEEDCRNG,)]


SEEDING = """
import os, sys
from pathlib import Path
from particle_agent.shortcuts import waiting

waiting.DIRECTORY = Path(sys.argv[1])
waiting.add_randomness = lambda seed: print(seed.hex(), flush=True)
waiting.time.clock_settime = lambda clock, seconds: print(clock, seconds, flush=True)
sys.argv = ["agent-x"]
waiting.serve(lambda: 0)
"""


@pytest.mark.parametrize(("digits", "answer"), [("00ff10", "seeded"), ("zz", "failed")])
def test_an_agent_that_waits_mixes_in_random_bytes_before_the_next_agent(tmp_path, digits, answer):
    with subprocess.Popen(
        [sys.executable, "-c", SEEDING, tmp_path], cwd=TOP / "guest-agent", stdout=subprocess.PIPE
    ) as process:
        try:
            done = tmp_path / "done"
            script = (
                'until [ -p "$0/agent-x" ]; do sleep 0.01; done; mkfifo "$1"; '
                'echo "seed $2 17 $1" >"$0/agent-x"; cat "$1"'
            )
            said = subprocess.run(
                ["sh", "-c", script, tmp_path, done, digits],
                capture_output=True,
                text=True,
                timeout=HANG_SECONDS,
                check=True,
            ).stdout
        finally:
            process.kill()
        printed = process.stdout.read().decode()
    assert said.startswith(answer)
    # CLOCK_REALTIME is 0 (linux/time.h).
    assert printed == (f"{digits}\n0 17\n" if answer == "seeded" else "")

"""Starts agents by forking a process that has all modules in memory.

The helper VM starts this process before its memory is saved. An order is a line in a FIFO: the ID
of the process whose standard streams the new agent takes over, a FIFO for the agent's exit status,
and the agent's arguments. An order `seed` prepares the VM for a build instead: it has random bytes
in hexadecimal digits, the time in seconds since 1970, and a FIFO that gets a line when the kernel
uses both. No program has to start for that: each takes long in a VM that has just been restored.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from particle_agent.target.system_calls import call

DIRECTORY = Path("/run/particle-os")
# asm-generic/unistd.h. pidfd_getfd(2) also copies sockets, which cannot be opened by /proc/PID/fd.
PIDFD_GETFD = 438
# linux/random.h. The first one adds bytes and counts their bits; the second one makes the kernel
# use them for all random numbers from now on, instead of a minute later.
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
SEED = "seed"
RANDOM = Path("/dev/random")


def serve(main: Callable[[], int]) -> NoReturn:
    """Runs `main` in a new process for each order, forever. The FIFO has this program's name."""
    place = DIRECTORY / Path(sys.argv[0]).name
    os.mkfifo(place, 0o600)
    # The kernel reaps the agents: this process does not wait for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Open the FIFO for writing, too, so that reading never meets the end of the file.
    with place.open("r+b", buffering=0) as orders:
        while True:
            pid, status, *arguments = orders.readline().decode().split()
            if pid == SEED:
                seconds, answer = arguments
                # Forks from now on get their random numbers from the new seed.
                Path(answer).write_text(f"{_seeded(status, seconds)}\n")
            elif os.fork() == 0:
                orders.close()
                run(int(pid), Path(status), arguments, main)


def _seeded(digits: str, seconds: str) -> str:
    """Prepares the VM; returns the word "seeded", or the reason of a failure."""
    try:
        prepare(digits, seconds)
    except (OSError, ValueError) as error:
        return f"failed: {error}"
    return "seeded"


def prepare(digits: str, seconds: str) -> None:
    """Mixes in the random bytes, and sets the clock. Raises OSError, and ValueError for others."""
    add_randomness(bytes.fromhex(digits))
    time.clock_settime(time.CLOCK_REALTIME, int(seconds))


def add_randomness(seed: bytes) -> None:
    """Mixes random bytes of the host into the kernel's pool, and makes the kernel use them.

    Two machines that run from one saved memory have the same random numbers until then.
    """
    request = struct.pack(f"ii{len(seed)}s", 8 * len(seed), len(seed), seed)
    with RANDOM.open("wb", buffering=0) as pool:
        fcntl.ioctl(pool, RNDADDENTROPY, request)
        fcntl.ioctl(pool, RNDRESEEDCRNG)


def run(pid: int, status: Path, arguments: list[str], main: Callable[[], int]) -> NoReturn:
    """Runs an agent in this process, writes its exit status to `status`, and exits."""
    code = 1
    # Keep the FIFO open until exit, so that its reader gets EOF even after a crash.
    with status.open("w") as result:
        try:
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _take_streams(pid)
            sys.argv = arguments
            code = main()
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        result.write(f"{code}\n")
    os._exit(code)


def _take_streams(pid: int) -> None:
    process = os.pidfd_open(pid)
    for number in range(3):
        stream = call("syscall", PIDFD_GETFD, process, number, 0)
        os.dup2(stream, number)
        os.close(stream)
    os.close(process)

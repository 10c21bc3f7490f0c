"""Agents that need no start: one process has all modules in its memory, and forks.

The helper VM runs it from before its memory is saved. An order is a line in a FIFO: the process
whose standard streams the new agent takes, a FIFO for its exit status, and its arguments.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from particle_agent.target.system_calls import call

DIRECTORY = Path("/run/particle-os")
# asm-generic/unistd.h; pidfd_getfd(2) takes sockets, too, which /proc/PID/fd does not open.
PIDFD_GETFD = 438


def serve(main: Callable[[], int]) -> NoReturn:
    """Runs `main` in a new process for each order, for ever; the FIFO has this program's name."""
    place = DIRECTORY / Path(sys.argv[0]).name
    os.mkfifo(place, 0o600)
    # Nobody waits for the agents.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # With a writer of its own it never ends.
    with place.open("r+b", buffering=0) as orders:
        while True:
            pid, status, *arguments = orders.readline().decode().split()
            if os.fork() == 0:
                orders.close()
                run(int(pid), Path(status), arguments, main)


def run(pid: int, status: Path, arguments: list[str], main: Callable[[], int]) -> NoReturn:
    """This process becomes an agent, and ends; its exit status goes to `status` at the end."""
    code = 1
    # Held open: who waits for the status learns of every end.
    with status.open("w") as told:
        try:
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _take_streams(pid)
            sys.argv = arguments
            code = main()
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        told.write(f"{code}\n")
    os._exit(code)


def _take_streams(pid: int) -> None:
    process = os.pidfd_open(pid)
    for number in range(3):
        stream = call("syscall", PIDFD_GETFD, process, number, 0)
        os.dup2(stream, number)
        os.close(stream)
    os.close(process)

"""What a recipe may forbid a stage: to take longer than a time, and to reach a network."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from particle_agent.target.system_calls import call

# linux/sched.h, linux/sockios.h, linux/if.h
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
# linux/prctl.h; linux/capability.h: SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT,
# PERFMON and BPF. With one of these, root gets out of a namespace, or at what is outside.
PR_CAPBSET_DROP = 24
WAYS_OUT = (16, 17, 19, 21, 22, 38, 39)


class TimeUp(BaseException):
    """The stage's time is up; not an Exception, so that no stage takes it for one of its own."""


@contextmanager
def time_limit(seconds: int | None) -> Iterator[None]:
    """Ends what runs in the context after so many seconds (None: never); raises TimeUp then.

    All processes that were started here are killed first, so that nothing waits for them. In the
    main thread only.
    """
    if seconds is None:
        yield
        return

    def end(*_: object) -> None:
        kill_descendants()
        raise TimeUp

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def kill_descendants() -> None:
    """Kills every process that this one started, directly or not, in whatever session it is."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        try:
            # proc_pid_stat(5): the name, in brackets, may hold anything.
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if entry.name.isdigit():
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    pending = children.get(os.getpid(), [])
    while pending:
        process = pending.pop()
        pending += children.get(process, [])
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


@contextmanager
def no_network() -> Iterator[None]:
    """This thread, and all that it starts, in a network namespace with nothing but a loopback.

    Pipes and connections that are open go on. Programs that are started with `before_exec` cannot
    leave. Needs CAP_SYS_ADMIN; see network_namespaces(7).
    """
    global _before_exec
    with Path("/proc/thread-self/ns/net").open("rb") as outside:
        call("unshare", CLONE_NEWNET)
        _before_exec = _stay_inside
        try:
            _loopback_up()
            yield
        finally:
            _before_exec = None
            call("setns", outside.fileno(), CLONE_NEWNET)


def before_exec() -> Callable[[], None] | None:
    """What a child runs before it becomes another program, where there is a limit to keep."""
    return _before_exec


_before_exec: Callable[[], None] | None = None


def _stay_inside() -> None:
    """Takes from this process, and all that it starts, what is needed to leave a namespace."""
    for capability in WAYS_OUT:
        call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)


def _loopback_up() -> None:
    """As `ip link set lo up` does it; see netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))

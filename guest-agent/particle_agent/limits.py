"""What a recipe may forbid a stage: to take longer than a time, and to reach a network."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# linux/sched.h, linux/sockios.h, linux/if.h
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


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

    Pipes and connections that are open go on. Needs CAP_SYS_ADMIN; see network_namespaces(7).
    """
    with Path("/proc/thread-self/ns/net").open("rb") as outside:
        _call("unshare", CLONE_NEWNET)
        try:
            _loopback_up()
            yield
        finally:
            _call("setns", outside.fileno(), CLONE_NEWNET)


def _loopback_up() -> None:
    """As `ip link set lo up` does it; see netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def _call(name: str, *arguments: int) -> None:
    # os.unshare and os.setns are of Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")

"""The limits that a recipe may set for a stage: of its time, and of its network."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from particle_agent.contract.hosts import CONNECTIONS, PROXY_PORT, StageNetwork
from particle_agent.target.relay import LOOPBACK, Relay
from particle_agent.target.system_calls import CLONE_NEWNET, call

# linux/sockios.h, linux/if.h
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


class TimeUp(BaseException):
    """The stage's time is up. It is no Exception, so that no stage handles it as its own error."""


@contextmanager
def time_limit(seconds: int | None) -> Iterator[None]:
    """Raises TimeUp in the context after this number of seconds (None: never).

    It first kills all processes that this process has started, so that nothing waits for them. It
    works in the main thread only.
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
    """Kills every descendant of this process, in any session."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        try:
            # proc_pid_stat(5): the name, in parentheses, may contain any character.
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


def network_limit(network: StageNetwork | None) -> AbstractContextManager[object]:
    """Limits this thread, and all that it starts, to the network that a stage may have."""
    if network is None:
        return nullcontext()
    return only_the_proxy() if isinstance(network, tuple) else no_network()


@contextmanager
def only_the_proxy(port: int = PROXY_PORT, outside: int = PROXY_PORT) -> Iterator[None]:
    """Moves this thread to a namespace as `no_network` does, in which one port leads outside.

    Connections to `port` of 127.0.0.1 go to the port `outside` of 127.0.0.1 in the namespace of
    before. There sshd listens, and the host answers.
    """
    with (
        no_network() as namespace,
        socket.create_server((LOOPBACK, port), backlog=CONNECTIONS) as listener,
    ):
        relay = Relay(listener, namespace, outside)
        try:
            yield
        finally:
            relay.close()


@contextmanager
def no_network() -> Iterator[int]:
    """Moves this thread, and all that it starts, to a network namespace with only a loopback.

    Yields a descriptor of the namespace of before.

    Open pipes and connections stay usable. Programs of the target cannot leave the namespace: they
    lack CAP_SYS_ADMIN (`confinement`). Programs of the VM itself can leave it; they find a network
    card without its cable. Needs CAP_SYS_ADMIN; see network_namespaces(7).
    """
    with Path("/proc/thread-self/ns/net").open("rb") as outside:
        call("unshare", CLONE_NEWNET)
        try:
            _loopback_up()
            yield outside.fileno()
        finally:
            call("setns", outside.fileno(), CLONE_NEWNET)


def _loopback_up() -> None:
    """Enables the loopback device as `ip link set lo up` does; see netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))

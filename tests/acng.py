"""A real apt-cacher-ng for one test, run as the user of the test or as another one."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .waiting import HANG_SECONDS, until

PROGRAM = "/usr/sbin/apt-cacher-ng"


@contextmanager
def running(directory: Path, *settings: str, user: int | None = None) -> Iterator[str]:
    """Runs apt-cacher-ng as `user` (or the caller) on a free port of loopback; yields its URL."""
    config = directory / "acng"
    for name in ("cache", "log", "conf"):
        (config / name).mkdir(parents=True)
        if user is not None:
            os.chown(config / name, user, -1)
    if user is not None:
        os.chown(config, user, -1)
    with ExitStack() as stack:
        # Another process may take the port before apt-cacher-ng does, which then runs without one.
        for _ in range(5):
            port = free_port()
            _configure(config, port, settings)
            if stack.enter_context(_listening(config, port, user)):
                yield f"http://127.0.0.1:{port}"
                return
            stack.close()
    raise AssertionError("apt-cacher-ng gets no port")


def _configure(config: Path, port: int, settings: tuple[str, ...]) -> None:
    lines = [f"CacheDir: {config}/cache", f"LogDir: {config}/log", f"SocketPath: {config}/socket"]
    lines += [f"Port: {port}", "BindAddress: 127.0.0.1", "ForeGround: 1"]
    lines += [
        "SupportDir: /usr/lib/apt-cacher-ng",
        "ReportPage: acng-report.html",
        *settings,
    ]
    (config / "conf/acng.conf").write_text("".join(f"{line}\n" for line in lines))


@contextmanager
def _listening(config: Path, port: int, user: int | None) -> Iterator[bool]:
    """Runs apt-cacher-ng; yields whether it, and no other process, listens on the port."""
    argv: list[str | Path] = [PROGRAM, "-c", config / "conf"]
    with (config / "errors").open("w+") as errors:
        program = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=errors, user=user)

        def state() -> str:
            assert program.poll() is None, "apt-cacher-ng has ended before it answered"
            if "busy" in (config / "errors").read_text():
                return "busy"
            if _listeners(port) & _sockets_of(program):
                return "listening"
            return ""

        try:
            yield until(state) == "listening"
        finally:
            program.terminate()
            program.wait(HANG_SECONDS)


def _listeners(port: int) -> set[str]:
    """The inodes of the sockets that listen on the port (proc_net_tcp(5))."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[9] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"}


def _sockets_of(program: subprocess.Popen[bytes]) -> set[str]:
    names = []
    for entry in Path(f"/proc/{program.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(entry))
    return {name[8:-1] for name in names if name.startswith("socket:[")}


def free_port() -> int:
    """A free port below 32768: apt-cacher-ng reads ports as signed 16-bit numbers."""
    for port in random.sample(range(20000, 32000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")

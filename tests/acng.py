"""A real apt-cacher-ng for one test, run as the user of the test or as another one."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .waiting import HANG_SECONDS, until

PROGRAM = "/usr/sbin/apt-cacher-ng"


@contextmanager
def running(directory: Path, *settings: str, user: int | None = None) -> Iterator[str]:
    """Runs apt-cacher-ng as `user` (or the caller) on a free port of loopback; yields its URL."""
    port = free_port()
    config = directory / "acng"
    for name in ("cache", "log", "conf"):
        (config / name).mkdir(parents=True)
        if user is not None:
            os.chown(config / name, user, -1)
    if user is not None:
        os.chown(config, user, -1)
    lines = [f"CacheDir: {config}/cache", f"LogDir: {config}/log", f"SocketPath: {config}/socket"]
    lines += [f"Port: {port}", "BindAddress: 127.0.0.1", "ForeGround: 1"]
    lines += ["SupportDir: /usr/lib/apt-cacher-ng", "ReportPage: acng-report.html", *settings]
    (config / "conf/acng.conf").write_text("".join(f"{line}\n" for line in lines))
    with subprocess.Popen(
        [PROGRAM, "-c", config / "conf"], stdout=subprocess.DEVNULL, user=user
    ) as program:
        try:
            _wait_for(port, program)
            yield f"http://127.0.0.1:{port}"
        finally:
            program.terminate()


def free_port() -> int:
    """A free port below 32768: apt-cacher-ng reads ports as signed 16-bit numbers."""
    for port in random.sample(range(20000, 32000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def _wait_for(port: int, program: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        assert program.poll() is None, "apt-cacher-ng has ended before it answered"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), HANG_SECONDS).close()
            return True
        return False

    until(answers)

"""A stand-in for a booted image: the probe's loop of orders, in a real shell on a terminal."""

import os
import pty
import select
import subprocess
import threading
from importlib import resources
from types import SimpleNamespace

import pytest
from particle_os.boot.frameworks.image_shell import ImageShell

NONCE = "0" * 32


class Line:
    """The host's end of the terminal."""

    def __init__(self, master):
        self._data = bytearray()
        self._master = master
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            while chunk := os.read(self._master, 65536):
                self._data += chunk
        except OSError:
            return

    @property
    def data(self):
        return bytes(self._data)

    def send(self, data):
        os.write(self._master, data)

    def forget(self):
        del self._data[:]


def machine():
    """A machine whose console prints nothing."""
    console = SimpleNamespace(read=lambda seconds: select.select([], [], [], seconds))
    return SimpleNamespace(console=console)


@pytest.fixture
def probe(tmp_path):
    """Starts the probe's loop of orders with these variables; returns the host's end of its line.

    The terminal has the settings of a serial line that no program has changed.
    """
    master, slave = pty.openpty()
    script = resources.files("particle_os.boot").joinpath("probe.sh").read_text()
    functions = script.partition('echo "PARTICLE-OS-PROBE $1"')[0]
    loop = script[script.index("# The host looks") :]
    text = (functions + loop).replace("/dev/ttyS1", os.ttyname(slave))
    started = []

    def start(**variables):
        directory = tmp_path / "run"
        directory.mkdir()
        environment = {"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(directory)}
        argv = ["sh", "-c", text, "probe", NONCE]
        started.append(subprocess.Popen(argv, env=environment | variables))
        return Line(master)

    yield start
    for each in started:
        each.kill()
        each.wait()
    os.close(slave)
    os.close(master)


@pytest.fixture
def shell(probe):
    """The shell of an image whose probe waits for orders."""
    return ImageShell(machine(), probe(), 1.0)

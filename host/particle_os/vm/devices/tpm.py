"""An emulated TPM 2.0: the program swtpm, which QEMU reaches through a Unix socket (swtpm(8))."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from particle_os.errors import InfrastructureError
from particle_os.system import process
from particle_os.system.confinement import Confinement, environment
from particle_os.vm.devices.hardware import TPM_SOCKET

PROGRAM = "swtpm"
STATE = "tpm"


def check() -> None:
    """Raises InfrastructureError when swtpm is not installed."""
    if shutil.which(PROGRAM, path=environment({})["PATH"]) is None:
        raise InfrastructureError(
            "a machine with a TPM needs the program 'swtpm', which is not installed",
            hint="Install it (Debian: sudo apt install swtpm), or boot without a TPM.",
        )


@contextmanager
def running_tpm(directory: Path) -> Iterator[None]:
    """Runs a new TPM for the machine in `directory` until the context ends.

    The TPM reaches only its own state, a directory in `directory`. Raises InfrastructureError when
    swtpm is not installed.
    """
    check()
    state = directory / STATE
    state.mkdir(mode=0o700, exist_ok=True)
    with _listening(directory) as server:
        # The names are relative and fixed: swtpm splits the value of an option at commas.
        argv = [PROGRAM, "socket", "--tpm2", "--tpmstate", "dir=.", "--ctrl", "type=unixio,fd=0"]
        within = Confinement(writes=(state,))
        with process.started(argv, within=within, stdin=server.fileno(), directory=state):
            yield


@contextmanager
def _listening(directory: Path) -> Iterator[socket.socket]:
    """Makes the socket TPM_SOCKET in a directory, whose path may be of any length."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(f"/proc/self/fd/{place}/{TPM_SOCKET}")
            server.listen(1)
            yield server
    finally:
        os.close(place)

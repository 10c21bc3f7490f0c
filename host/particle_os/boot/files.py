"""The files that a system hands over for people after its answer: journal, times, packages.

The files do not affect the verdict. They are untrusted: texts are made printable, and the plot of
the boot is redrawn (see `plot`).
"""

from __future__ import annotations

import base64
import binascii
import time
from pathlib import Path

from particle_os.boot import plot
from particle_os.errors import InfrastructureError, printable
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate
from particle_os.vm.chardev import Chardev
from particle_os.vm.machine import Machine

JOURNAL, BLAME, PACKAGES, PLOT = "journal.txt", "blame.txt", "packages.txt", "plot.svg"
# BLAME comes from the plot: a separate question for the times would take as long as the plot.
TEXTS = (JOURNAL, PACKAGES)
# The output of pytest, which runs on the host.
TESTS = "pytest.txt"
NAMES = (*TEXTS, BLAME, PLOT, TESTS)
FILE_BYTES = 1 << 20
LINES = 20_000
LINE_CHARACTERS = 1000
POLL_SECONDS = 0.2
PREFIX = "file:"


def first_marker(nonce: str) -> bytes:
    """Returns the line that the probe sends before the first file."""
    return f"PARTICLE-OS-FILES {nonce}".encode()


def last_marker(nonce: str) -> bytes:
    """Returns the line that the probe sends after the last file."""
    return f"PARTICLE-OS-FILES-END {nonce}".encode()


def fetch(
    machine: Machine,
    answer: Chardev,
    nonce: str,
    directory: Path,
    gate: Gate,
    deadline: Deadline,
    *,
    with_plot: bool,
) -> None:
    """Asks the probe for the files, and writes to `directory` the files that arrive in time."""
    answer.send(b"files plot\n" if with_plot else b"files\n")
    try:
        while last_marker(nonce) not in answer.data and time.monotonic() < deadline.at:
            # The console has no other reader now, and a guest blocks when nothing reads its output.
            machine.console.read(POLL_SECONDS)
    except InfrastructureError:
        pass  # The machine has ended.
    write(answer.data, nonce, directory, gate)


def keep_tests(source: Path, directory: Path, gate: Gate) -> None:
    """Writes the output of pytest in a form that is safe to view, if there is a file of it."""
    if source.exists():
        with source.open("rb") as file:
            text = _text(file.read(FILE_BYTES), gate)
        (directory / TESTS).write_text(text, encoding="utf-8")


def write(data: bytes, nonce: str, directory: Path, gate: Gate) -> None:
    """Writes the known files of a probe's answer in a form that is safe to view."""
    for name, content in _files(data, nonce).items():
        if name in TEXTS:
            (directory / name).write_text(_text(content, gate), encoding="utf-8")
        elif name == PLOT and (drawn := plot.redrawn(content)) is not None:
            drawn = gate.text(drawn)
            (directory / name).write_text(drawn, encoding="utf-8")
            (directory / BLAME).write_text(_blame(drawn), encoding="utf-8")


def _files(data: bytes, nonce: str) -> dict[str, bytes]:
    """Returns the files between this run's markers; incomplete lines are skipped."""
    rest = data.partition(first_marker(nonce))[2].partition(last_marker(nonce))[0]
    found = {}
    for line in rest.decode("ascii", "replace").replace("\r", "").split("\n")[:-1]:
        name, _, value = line.partition(" ")
        try:
            content = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            continue
        if name.startswith(PREFIX) and content:
            found[name.removeprefix(PREFIX)] = content[:FILE_BYTES]
    return found


def _blame(drawn: str) -> str:
    """Returns the start time of each unit, longest first, as `systemd-analyze blame` prints it."""
    times = sorted(plot.unit_times(drawn), key=lambda item: item[1], reverse=True)
    return "".join(f"{seconds:10.3f}s {unit}\n" for unit, seconds in times)


def _text(content: bytes, gate: Gate) -> str:
    lines = gate.text(content.decode("utf-8", "replace")).split("\n")[:LINES]
    return "\n".join(printable(line, LINE_CHARACTERS) for line in lines)

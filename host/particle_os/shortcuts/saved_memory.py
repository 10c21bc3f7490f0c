"""Saved states of a booted machine: starting from one takes a fraction of a boot.

A state is saved before any key exists in the machine. It belongs to one QEMU, processor, command
line, and content, so all of these are in its key; whatever else goes wrong with it, the caller
removes it and boots. It holds the memory of a machine, and is readable by its owner alone. Its
last bytes are the SHA-256 of those before, which are QEMU's; QEMU does not read further than it has
written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from particle_os.errors import VmError
from particle_os.system import process
from particle_os.system.deadline import Deadline
from particle_os.vm.accel import QEMU
from particle_os.vm.argv import MachineSpec, qemu_argv
from particle_os.vm.machine import Machine, running

FORMAT = 2
KEPT = 4
CHUNK = 1 << 20


def _processor() -> str:
    """What the host's processor offers; a state of KVM runs on the like of it only."""
    wanted = ("model name", "flags", "microcode")
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(wanted))


def state_path(directory: Path, spec: MachineSpec, content: str) -> Path:
    """Where the state of a machine of this specification lies, if it has been saved.

    `content` names what is in it and not in the specification.
    """
    processor = _processor() if spec.accelerator == "kvm" else ""
    parts = [
        FORMAT,
        process.identity(QEMU),
        os.uname().release,
        processor,
        qemu_argv(spec),
        content,
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    return directory / f"{key}.state"


def save(
    spec: MachineSpec,
    state: Path,
    *,
    boot: Callable[[Machine], None],
    directory: Path,
    transcript: Path,
    deadline: Deadline,
) -> None:
    """Boots a machine, waits for `boot` to return, and saves it whole or not at all.

    Only the newest few states are kept. Raises VmError when it cannot be written.
    """
    directory.mkdir(exist_ok=True, mode=0o700)
    # On the same file system, and removed with the machine's directory whatever happens.
    temporary = directory / "state"
    place = {"directory": directory, "transcript": transcript}
    try:
        state.parent.mkdir(exist_ok=True, mode=0o700)
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
        ) as file:
            with running(spec, **place, deadline=deadline) as machine:
                boot(machine)
                machine.monitor.save(file.fileno(), deadline)
            size = os.fstat(file.fileno()).st_size
            with temporary.open("rb") as saved:
                os.pwrite(file.fileno(), _digest(saved, size), size)
            os.fsync(file.fileno())
        temporary.rename(state)
    except OSError as error:
        raise VmError(f"the VM's memory cannot be saved: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    by_age = sorted(state.parent.glob("*.state"), key=lambda path: path.stat().st_mtime)
    for old in by_age[:-KEPT]:
        with suppress(OSError):
            old.unlink()


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first `size` bytes; the file's position stays."""
    digest, done = hashlib.sha256(), 0
    while chunk := os.pread(file.fileno(), min(CHUNK, max(0, size - done)), done):
        digest.update(chunk)
        done += len(chunk)
    return digest.digest()


def intact(state: Path) -> bool:
    """Whether a saved state is what was saved. Raises OSError when it cannot be read."""
    with state.open("rb") as file:
        return _is_whole(file)


def _is_whole(file: BinaryIO) -> bool:
    length = hashlib.sha256().digest_size
    size = os.fstat(file.fileno()).st_size - length
    return size >= 0 and os.pread(file.fileno(), length, size) == _digest(file, size)


@contextmanager
def restored(
    spec: MachineSpec, state: Path, *, directory: Path, transcript: Path, deadline: Deadline
) -> Iterator[Machine]:
    """Runs a machine from its saved state for as long as the context lasts.

    Raises VmError when it cannot be read, or is not what was saved.
    """
    spec = replace(spec, restored=True)
    place = {"directory": directory, "transcript": transcript}
    with ExitStack() as stack:
        try:
            file = stack.enter_context(state.open("rb"))
            os.utime(state)
        except OSError as error:
            raise VmError(f"the saved state cannot be read: {error}") from error
        # What QEMU gets is looked at while it starts, whoever removes the name meanwhile.
        reader = stack.enter_context(ThreadPoolExecutor(1))
        whole = reader.submit(_is_whole, file)
        machine = stack.enter_context(running(spec, **place, deadline=deadline))
        try:
            if not whole.result():
                raise VmError("the saved state of the helper VM is damaged")
        except OSError as error:
            raise VmError(f"the saved state cannot be read: {error}") from error
        machine.monitor.restore(file.fileno(), deadline)
        yield machine

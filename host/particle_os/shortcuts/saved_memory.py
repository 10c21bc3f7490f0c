"""Saves and restores the state of a booted machine; a restore takes a fraction of a boot.

A state is saved before the machine contains any key. It only fits one QEMU, host kernel, processor
(with KVM), command line and content, so its file name is a hash of all of them. If a restore fails
for another reason, the caller removes the state and boots. A state contains the memory of a
machine, and only its owner can read it. The file ends with the SHA-256 of QEMU's data; QEMU does
not read beyond its own data.
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
from particle_os.system import process, publication
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular
from particle_os.vm.argv import MachineSpec, qemu_argv
from particle_os.vm.console import ConsoleLog
from particle_os.vm.machine import Machine, running

FORMAT = 2
KEPT = 4
CHUNK = 1 << 20


def _processor() -> str:
    """Model and features of the host's processor; a state of KVM only runs on an equal one."""
    # The first three are those of PCs, the others those of arm64.
    wanted = ("model name", "flags", "microcode", "CPU ", "Features")
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(wanted))


def state_path(directory: Path, spec: MachineSpec, content: str) -> Path:
    """The path of the saved state of a machine; the file may not exist.

    `content` identifies the part of the machine's content that `spec` does not cover.
    """
    processor = _processor() if spec.accelerator == "kvm" else ""
    parts = [
        FORMAT,
        process.identity(spec.architecture.vm.qemu),
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
    transcript: ConsoleLog,
    deadline: Deadline,
) -> None:
    """Boots a machine, waits for `boot` to return, and saves the complete state or none.

    Keeps only the newest KEPT states. Raises VmError if the state cannot be written.
    """
    directory.mkdir(exist_ok=True, mode=0o700)
    # On the file system of `state`, and removed with the machine's directory in any case.
    temporary = directory / "state"
    try:
        state.parent.mkdir(exist_ok=True, mode=0o700)
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
        ) as file:
            with running(
                spec, directory=directory, transcript=transcript, deadline=deadline
            ) as machine:
                boot(machine)
                machine.monitor.save(file.fileno(), deadline)
            size = os.fstat(file.fileno()).st_size
            with temporary.open("rb") as saved:
                file.seek(size)
                file.write(_digest(saved, size))
        publication.keep(temporary, state)
    except OSError as error:
        raise VmError(f"the VM's memory cannot be saved: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    by_age = sorted(state.parent.glob("*.state"), key=_time)
    for old in by_age[:-KEPT]:
        with suppress(OSError):
            old.unlink()


def _time(state: Path) -> float:
    """When a state was saved; 0 when another process has removed it."""
    try:
        return state.stat().st_mtime
    except OSError:
        return 0


def _digest(file: BinaryIO, size: int) -> bytes:
    """The SHA-256 of the first `size` bytes; the position in the file does not change."""
    digest, done = hashlib.sha256(), 0
    while chunk := os.pread(file.fileno(), min(CHUNK, max(0, size - done)), done):
        digest.update(chunk)
        done += len(chunk)
    return digest.digest()


def intact(state: Path) -> bool:
    """Whether a saved state is undamaged. Raises OSError if it cannot be read."""
    with open_regular(state) as file:
        return _is_whole(file)


def _is_whole(file: BinaryIO) -> bool:
    length = hashlib.sha256().digest_size
    size = os.fstat(file.fileno()).st_size - length
    return size >= 0 and os.pread(file.fileno(), length, size) == _digest(file, size)


@contextmanager
def restored(
    spec: MachineSpec, state: Path, *, directory: Path, transcript: ConsoleLog, deadline: Deadline
) -> Iterator[Machine]:
    """Runs a machine from its saved state while the context lasts.

    Raises VmError if the state cannot be read or is damaged.
    """
    spec = replace(spec, restored=True)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(state))
            os.utime(state)
        except OSError as error:
            raise VmError(f"the saved state cannot be read: {error}") from error
        # Hashes the open file while QEMU starts; another build may remove its name meanwhile.
        reader = stack.enter_context(ThreadPoolExecutor(1))
        whole = reader.submit(_is_whole, file)
        started = running(spec, directory=directory, transcript=transcript, deadline=deadline)
        machine = stack.enter_context(started)
        try:
            if not whole.result():
                raise VmError("the saved state of the helper VM is damaged")
        except OSError as error:
            raise VmError(f"the saved state cannot be read: {error}") from error
        machine.monitor.restore(file.fileno(), deadline)
        yield machine

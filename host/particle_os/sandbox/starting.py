"""Starts the VM of a sandbox from saved memory or by a boot, and connects by SSH with new keys."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import tenacity

from particle_os.errors import DeadlineExceeded, ParticleError, VmError
from particle_os.sandbox.agent import Agent, Program
from particle_os.sandbox.idleness import Idleness, UnlessIdle
from particle_os.shortcuts import saved_memory
from particle_os.system.deadline import Deadline
from particle_os.vm import cpio
from particle_os.vm.argv import EmptyDisk, MachineSpec
from particle_os.vm.console import ConsoleLog
from particle_os.vm.machine import Machine, running
from particle_os.vm.ssh import Connection, KeyPair

# Makes init.sh read the files that every build needs, and start the agent, before memory is saved.
PREHEAT = " particle_os.preheat"
START_ATTEMPTS = 3
HANDSHAKE_SECONDS = 120.0
# Twice as many as the kernel's pool of random numbers holds (drivers/char/random.c).
SEED_BYTES = 64


@dataclass(frozen=True)
class Places:
    """Paths of one helper VM: its own directory, its transcript, and all saved states.

    `note` receives remarks for the user.
    """

    directory: Path
    transcript: ConsoleLog
    states: Path
    note: Callable[[str], None]


class _Where(TypedDict):
    directory: Path
    transcript: ConsoleLog


def start(
    spec: MachineSpec,
    program: Program,
    content: str,
    places: Places,
    stack: ExitStack,
    deadline: Deadline,
    *,
    plain: bool = False,
    save_memory: bool = True,
) -> tuple[Machine, Agent]:
    """Starts a machine, which `stack` ends, and connects to the agent in it.

    The machine starts from the saved state of `content`. If that is missing, it is made; without
    `save_memory` the machine boots. The last attempt boots the machine, in case the saved state is
    the reason for a failure. With `plain` every attempt boots.
    """
    saved = _to_be_saved(spec)
    state = saved_memory.state_path(places.states, saved, content)
    for attempt in _attempts(deadline):
        with attempt, ExitStack() as start:
            last = attempt.retry_state.attempt_number == START_ATTEMPTS
            boots = plain or last or not (save_memory or state.exists())
            where = _Where(directory=places.directory, transcript=places.transcript)
            if not boots and not state.exists():
                cold = _with_agent(saved, program, places.directory)
                saved_memory.save(
                    cold, state, boot=_until_ready(deadline), **where, deadline=deadline
                )
            try:
                if boots:
                    cold = _with_agent(spec, program, places.directory)
                    machine = start.enter_context(running(cold, **where, deadline=deadline))
                    _until_ready(deadline)(machine)
                else:
                    restored = saved_memory.restored(spec, state, **where, deadline=deadline)
                    machine = start.enter_context(restored)
                connection = _connect(machine, _origin(spec, boots=boots), deadline)
                start.callback(connection.close)
                machine.console.watch(on_death=connection.abort)
                agent = Agent(connection, _death_of(machine), program, places.transcript.gate)
                start.callback(agent.forbid_hosts)
            except ParticleError as error:
                if not plain:
                    _drop(state, error, places.note)
                raise
            stack.push(start.pop_all())
    return machine, agent


def _attempts(deadline: Deadline) -> tenacity.Retrying:
    """The attempts to start a machine. A retry is safe: nothing of a build has run yet."""
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(START_ATTEMPTS),
        retry=tenacity.retry_if_exception(lambda error: _worth_a_retry(error, deadline)),
        reraise=True,
    )


def _worth_a_retry(error: BaseException, deadline: Deadline) -> bool:
    """Whether there is time for another attempt, and the error may be one of the VM."""
    return isinstance(error, VmError | DeadlineExceeded) and deadline.at > time.monotonic()


def _drop(state: Path, error: ParticleError, note: Callable[[str], None]) -> None:
    """Removes a saved state, which may be the reason for an error; another costs one boot."""
    try:
        state.unlink()
    except OSError:
        return
    note(f"{error.brief}: the VM starts without its saved state")


def _to_be_saved(spec: MachineSpec) -> MachineSpec:
    """The machine to save; a machine with the specification `spec` starts from its memory.

    The saved machine has empty disks, which the disks of the build replace.
    """
    root, *others = spec.disks
    direct = spec.direct_boot
    assert direct is not None
    return replace(
        spec,
        disks=(root, *(EmptyDisk(f"empty-{number}") for number in range(len(others)))),
        direct_boot=replace(direct, command_line=direct.command_line + PREHEAT),
    )


def _with_agent(spec: MachineSpec, program: Program, directory: Path) -> MachineSpec:
    """The machine with the agent in its initrd."""
    assert spec.direct_boot is not None
    initrd = directory / "initrd"
    shutil.copyfile(spec.direct_boot.initrd, initrd)
    cpio.append(initrd, [(f"{program.name}.pyz", 0o100644, program.data)])
    return replace(spec, direct_boot=replace(spec.direct_boot, initrd=initrd))


def _until_ready(deadline: Deadline) -> Callable[[Machine], None]:
    def boot(machine: Machine) -> None:
        while_busy = UnlessIdle.of(deadline, Idleness(machine.console.pid))
        machine.console.expect("PARTICLE-OS-READY", while_busy)

    return boot


def _origin(spec: MachineSpec, *, boots: bool) -> str:
    """The first word after KEY: init.sh waits until the kernel has noticed a restore, if it can."""
    if boots:
        return "booted"
    return "noticed" if spec.architecture.vm.generation_id else "restored"


def _connect(machine: Machine, origin: str, deadline: Deadline) -> Connection:
    """Sends random bytes and new keys over the console, and connects by SSH.

    The host makes both key pairs. So it need not trust a host key that the VM prints, and the VM
    saves the generation of a key, which takes a quarter of its start. Machines that are restored
    from one saved memory have the same random numbers until they use the random bytes.
    """
    user, host = KeyPair(), KeyPair()
    seed = secrets.token_hex(SEED_BYTES)
    handshake = deadline.sooner(HANDSHAKE_SECONDS, "the key handshake with the helper VM")
    words = (origin, str(int(time.time())), seed, user.public, host.secret)
    machine.console.send_line(f"KEY {' '.join(words)}")
    port = machine.monitor.forwarded_port(handshake)
    try:
        return Connection(port, host.private, user, handshake)
    except ParticleError as error:
        # The death of the VM explains more than a failed connection.
        raise _death_of(machine)() or error from error


def _death_of(machine: Machine) -> Callable[[], ParticleError | None]:
    def death() -> ParticleError | None:
        """The reason for the VM's death; waits because the watcher notices it with a delay."""
        until = time.monotonic() + 2.0
        while machine.console.death is None and time.monotonic() < until:
            time.sleep(0.05)
        return machine.console.death

    return death

"""How the VM of a sandbox starts: from saved memory or booted, with fresh keys, reached by SSH."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import tenacity

from particle_os.errors import DeadlineExceeded, ParticleError, VmError
from particle_os.sandbox.agent import Agent, Program
from particle_os.shortcuts import saved_memory
from particle_os.system.deadline import Deadline
from particle_os.vm import cpio
from particle_os.vm.argv import EmptyDisk, MachineSpec
from particle_os.vm.machine import Machine, running
from particle_os.vm.ssh import Connection, KeyPair

# For a machine that is to be saved: what every build starts with is read, and the agent started.
PREHEAT = " particle_os.preheat"
START_ATTEMPTS = 3
HANDSHAKE_SECONDS = 30.0


@dataclass(frozen=True)
class Places:
    """Directories of one helper VM: its own, and the one of the saved states."""

    directory: Path
    transcript: Path
    states: Path


def start(
    spec: MachineSpec,
    program: Program,
    content: str,
    places: Places,
    stack: ExitStack,
    deadline: Deadline,
    *,
    plain: bool = False,
) -> tuple[Machine, Agent]:
    """A machine that `stack` ends, from the saved state or booted, and the agent in it.

    The state is made when it is missing; `content` names what is in it. Whatever is wrong with it,
    a boot comes instead; with `plain` it comes at once.
    """
    saved = _to_be_saved(spec)
    state = saved_memory.state_path(places.states, saved, content)
    # Nothing has happened in a VM that fails here.
    for attempt in tenacity.Retrying(
        stop=tenacity.stop_after_attempt(START_ATTEMPTS),
        retry=tenacity.retry_if_exception_type((VmError, DeadlineExceeded)),
        reraise=True,
    ):
        with attempt, ExitStack() as start:
            boots = plain or attempt.retry_state.attempt_number == START_ATTEMPTS
            where = {"directory": places.directory, "transcript": places.transcript}
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
                connection = _connect(machine, restored=not boots, deadline=deadline)
                start.callback(connection.close)
                machine.console.watch(on_death=connection.abort)
                agent = Agent(connection, _death_of(machine), program)
            except ParticleError:
                # Whatever it was: a state that is made anew costs one boot.
                with suppress(OSError):
                    if not plain:
                        state.unlink()
                raise
            stack.push(start.pop_all())
    return machine, agent


def _to_be_saved(spec: MachineSpec) -> MachineSpec:
    """The machine whose memory one of this specification can start from.

    The disks of a build come into a machine that has been saved with empty ones.
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
    """The machine with an initrd that has the agent."""
    assert spec.direct_boot is not None
    initrd = directory / "initrd"
    shutil.copyfile(spec.direct_boot.initrd, initrd)
    cpio.append(initrd, [(f"{program.name}.pyz", 0o100644, program.data)])
    return replace(spec, direct_boot=replace(spec.direct_boot, initrd=initrd))


def _until_ready(deadline: Deadline) -> Callable[[Machine], None]:
    def boot(machine: Machine) -> None:
        machine.console.expect("PARTICLE-OS-READY", deadline)

    return boot


def _connect(machine: Machine, *, restored: bool, deadline: Deadline) -> Connection:
    """Hands in fresh keys over the console, and connects by SSH.

    The host makes both key pairs: the VM would have to be believed if it told its own, and a
    program that makes one there takes a quarter of the start.
    """
    user, host = KeyPair(), KeyPair()
    origin = "restored" if restored else "booted"
    handshake = deadline.sooner(HANDSHAKE_SECONDS, "the key handshake with the helper VM")
    machine.console.send_line(f"KEY {origin} {int(time.time())} {user.public} {host.secret}")
    port = machine.monitor.forwarded_port(handshake)
    try:
        return Connection(port, host.private, user, handshake)
    except ParticleError as error:
        # What the VM said last tells more.
        raise _death_of(machine)() or error from error


def _death_of(machine: Machine) -> Callable[[], ParticleError | None]:
    def death() -> ParticleError | None:
        """Why the VM died; the watcher needs a moment to notice."""
        until = time.monotonic() + 2.0
        while machine.console.death is None and time.monotonic() < until:
            time.sleep(0.05)
        return machine.console.death

    return death

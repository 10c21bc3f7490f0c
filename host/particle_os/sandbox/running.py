"""The helper VM, up and reachable: boot, key handshake on the console, SSH, agent in place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from particle_agent.contract import wire
from particle_agent.stages.output.qemu import DISK_LIMIT

from particle_os.errors import VmError
from particle_os.sandbox.agent import Agent, pack
from particle_os.sandbox.helper import Helper
from particle_os.sandbox.starting import Places, start
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import cache_directory, need_room
from particle_os.vm.accel import Acceleration
from particle_os.vm.argv import MIB, DirectBoot, Disk, MachineSpec
from particle_os.vm.machine import Machine
from particle_os.vm.overlay import copy_disk, make_disk

# One processor until all devices are there: when the memory of one is mapped while others run, the
# emulating QEMU 10.0 dies at times (an assertion in iotlb_to_section), or loses what another
# processor writes to its interrupt controller, which is deaf from then on (seen: an interrupt in
# service for ever, a hung guest).
# (lpj saves the later start of a processor a second of measuring, noreplace-smp patching for it.)
# What guards one user of a machine against another only slows one that root has for itself: to
# clear memory twice, security modules, and accounts of memory take an eighth of a program's start.
# What the kernel does for nobody here while it starts takes half a second: tests of its ciphers, a
# generator of random numbers that nobody asks, keys to check modules with, and kfuncs of BPF.
COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 maxcpus=1 lpj=4000000 noreplace-smp"
    " init_on_alloc=0 lsm= cgroup_disable=memory cryptomgr.notests"
    " initcall_blacklist=jent_mod_init,load_system_certificate_list,bpf_tcp_ca_kfunc_init,"
    "bpf_dummy_struct_ops_init"
)
BOOT_SECONDS = 60.0
SCRATCH_STEP = "making the scratch disk"
# What the VM sees; the file is sparse, and written when packages are wanted.
PACKAGES_BYTES = 16 << 30


@dataclass(frozen=True)
class Resources:
    """What a helper VM gets; bytes."""

    memory: int
    cpus: int
    scratch: int


class Sandbox:
    """A helper VM with the agent in it.

    `output` is the disk that the guest writes, and has `written` bytes of when it is complete;
    `packages` is the one that the host fills for it.
    """

    def __init__(
        self, machine: Machine, agent: Agent, scratch: Disk, output: Disk, packages: Disk
    ) -> None:
        self._machine = machine
        self._scratch = scratch
        self._disk = output
        self.agent = agent
        self.output = output.path
        self.packages = packages.path
        self.written: int | None = None

    def freeze_scratch(self, size: int, deadline: Deadline) -> Path:
        """The scratch disk (of `size` bytes) as it is now: a file that nobody writes any more.

        It stands on what the scratch disk stood on before. The guest goes on on an overlay.
        """
        frozen = self._scratch
        layers = (*(frozen.backing or ()), frozen.path)
        path = self._machine.directory / f"scratch-{len(layers)}.qcow2"
        make_disk(path, size, deadline, what=SCRATCH_STEP)
        self._scratch = Disk(path, "qcow2", path.stem, backing=layers)
        # QEMU has the layers below open already.
        self._machine.monitor.overlay(frozen, replace(self._scratch, backing=()), deadline)
        return frozen.path

    def keep_scratch(self, place: Path, deadline: Deadline) -> None:
        """Ends the VM and writes its scratch disk to `place`, for a look at what failed."""
        # QEMU writes out what it holds of the disk before it goes.
        self._machine.monitor.execute("quit", deadline)
        self._machine.console.wait_for_end(deadline.sooner(30, "ending the helper VM"))
        copy_disk(self._scratch, place, deadline, what="keeping the scratch disk")

    def take_disk_event(self, event: wire.AgentEvent, deadline: Deadline) -> bool:
        """Handles what the guest says about the output disk; False for any other event.

        Raises NotEnoughSpace when the host has no room for what will be written.
        """
        if isinstance(event, wire.DiskNeeded):
            sane = 0 < event.size <= DISK_LIMIT and 0 <= event.content <= event.size
            if not sane or event.size % 512:
                raise VmError(f"the guest asks for a disk of {event.size} bytes")
            need_room(self.output.parent, event.content, "the image")
            self._machine.monitor.resize(self._disk, event.size, deadline)
            return True
        if isinstance(event, wire.DiskWritten):
            if not 0 < event.size <= self.output.stat().st_size:
                raise VmError(f"the guest says it wrote {event.size} bytes; there are fewer")
            self.written = event.size
            return True
        return False


@contextmanager
def running_sandbox(
    helper: Helper,
    acceleration: Acceleration,
    resources: Resources,
    *,
    directory: Path,
    output: Path,
    transcript: Path,
    deadline: Deadline,
    layers: Sequence[Path] = (),
    inspected: Disk | None = None,
    plain: bool = False,
) -> Iterator[Sandbox]:
    """Runs a helper VM for as long as the context lasts; nothing of it remains but `output`.

    `directory` is private to it. The scratch disk is empty, or an overlay over the frozen disks
    `layers`, the lowest first. A disk to be `inspected` takes the place of the packages'.
    With `plain` the machine boots, whatever memory has been saved, and no agent waits in it.
    """
    directory.mkdir(mode=0o700)
    scratch = directory / "scratch.qcow2"
    make_disk(scratch, resources.scratch, deadline, what=SCRATCH_STEP)
    output.touch(mode=0o644)
    os.truncate(output, MIB)
    packages = directory / "packages.squashfs"
    packages.touch(mode=0o600)
    os.truncate(packages, PACKAGES_BYTES)
    disks = (
        Disk(scratch, "qcow2", "scratch", backing=tuple(layers)),
        Disk(output, "raw", "output"),
        inspected or Disk(packages, "raw", "packages", read_only=True),
    )
    spec = MachineSpec(
        accelerator=acceleration.name,
        memory=resources.memory,
        cpus=resources.cpus,
        disks=(Disk(helper.root, "raw", "helper-root", read_only=True), *disks),
        direct_boot=DirectBoot(helper.kernel, helper.initrd, COMMAND_LINE),
        network="ssh",
    )
    program = pack()
    content = f"{program.name} {helper.identity()}"
    places = Places(directory, transcript, cache_directory() / "warm")
    boot = deadline.sooner(BOOT_SECONDS * acceleration.factor, "starting the helper VM")
    with ExitStack() as stack:
        machine, agent = start(spec, program, content, places, stack, boot, plain=plain)
        yield Sandbox(machine, agent, *disks)

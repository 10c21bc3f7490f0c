"""Runs a helper VM with its disks and the agent, and controls the disks during a build."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

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
from particle_os.vm.machine import ConsoleLog, Machine
from particle_os.vm.overlay import copy_disk, make_disk

# maxcpus=1: init.sh starts the other processors when all devices are set up. If the memory of a
# device is mapped while several processors run, the emulating QEMU 10.0 sometimes dies (an
# assertion in iotlb_to_section) or loses a write to an interrupt controller, and the guest hangs.
# init_on_alloc=0, lsm= and cgroup_disable=memory: these protections between users are useless in a
# VM that only root uses, and take an eighth of the start of each program.
# The rest saves half a second of the kernel's start: self-tests of ciphers, an unused generator of
# random numbers, the keys for signed modules, and BPF kfuncs.
# `MachineFacts.kernel_words` are those of the architecture.
COMMAND_LINE = (
    "console={console} quiet panic=-1 maxcpus=1 {words}"
    " init_on_alloc=0 lsm= cgroup_disable=memory cryptomgr.notests"
    " initcall_blacklist=jent_mod_init,load_system_certificate_list,bpf_tcp_ca_kfunc_init,"
    "bpf_dummy_struct_ops_init"
)
# Only ends what an idle VM does not (`idleness`): a busy host makes a start ten times as slow.
BOOT_SECONDS = 450.0
SCRATCH_STEP = "making the scratch disk"
# Bytes; the size that the VM sees. The file is sparse until the host writes packages into it.
PACKAGES_BYTES = 16 << 30


@dataclass(frozen=True)
class Resources:
    """The resources of a helper VM; `memory` and `scratch` (the scratch disk) are in bytes."""

    memory: int
    cpus: int
    scratch: int


class OutputDisk:
    """A disk that the guest writes, until it reports the disk as complete.

    Then `written` is its size in bytes, and the file does not change any more.
    """

    def __init__(self, machine: Machine, disk: Disk) -> None:
        self._machine = machine
        self._disk = disk
        self._asked = False
        self.path = disk.path
        self.written: int | None = None

    def grow(self, size: int, content: int, deadline: Deadline) -> None:
        """Grows the disk; the guest will write about `content` bytes. Sizes are in bytes."""
        # A minimal disk is measured first, so the guest may ask more than once.
        if self.written is not None:
            raise VmError("the guest asks for the output disk after it has written it")
        if not 0 < size <= DISK_LIMIT or not 0 <= content <= size or size % 512:
            raise VmError(f"the guest asks for a disk of {size} bytes")
        need_room(self.path.parent, content, "the image")
        self._asked = True
        self._machine.monitor.resize(self._disk, size, deadline)

    def seal(self, size: int, deadline: Deadline) -> None:
        """Takes the first `size` bytes as the result; the guest can change them no more."""
        if not self._asked or self.written is not None:
            raise VmError("the guest reports the output disk when none is due")
        whole = self.path.stat().st_size
        if not 0 < size <= whole:
            raise VmError(f"the guest reports {size} written bytes, more than the output disk has")
        # From now on, the guest's writes go to a disk that is thrown away.
        name = f"too-late-{self._disk.serial}"
        overlay = Disk(self._machine.directory / f"{name}.qcow2", "qcow2", name, backing=())
        make_disk(overlay.path, whole, deadline, what="sealing the output disk")
        self._machine.monitor.overlay(self._disk, overlay, deadline)
        self.written = size


class Sandbox:
    """A helper VM with a running agent.

    The guest writes the disks `outputs`, by their serial numbers. The host writes the disk
    `packages`.
    """

    def __init__(
        self,
        machine: Machine,
        agent: Agent,
        scratch: Disk,
        packages: Disk,
        outputs: Sequence[Disk],
    ) -> None:
        self._machine = machine
        self._scratch = scratch
        self.agent = agent
        self.outputs = {disk.serial: OutputDisk(machine, disk) for disk in outputs}
        self.packages = packages.path
        self.take_traffic = machine.take_traffic

    def connect_outside(self, connected: bool, deadline: Deadline) -> None:
        """Puts the cable into the VM's card to the network, or takes it out."""
        self._machine.monitor.connect_outside(connected, deadline)

    def freeze_scratch(self, size: int, deadline: Deadline) -> Path:
        """Freezes the scratch disk (of `size` bytes) and returns its file, which stays unchanged.

        The frozen file keeps its backing files. The guest continues on a new overlay.
        """
        frozen = self._scratch
        layers = (*(frozen.backing or ()), frozen.path)
        path = self._machine.directory / f"scratch-{len(layers)}.qcow2"
        make_disk(path, size, deadline, what=SCRATCH_STEP)
        self._scratch = Disk(path, "qcow2", path.stem, backing=layers)
        # QEMU has already opened the layers below.
        self._machine.monitor.overlay(frozen, replace(self._scratch, backing=()), deadline)
        return frozen.path

    def keep_scratch(self, place: Path, deadline: Deadline) -> None:
        """Ends the VM and copies its scratch disk to `place`, to investigate a failure."""
        # QEMU writes its cached data to the disk before it exits.
        self._machine.monitor.execute("quit", deadline)
        self._machine.console.wait_for_end(deadline.sooner(30, "ending the helper VM"))
        copy_disk(self._scratch, place, deadline, what="keeping the scratch disk")

    def take_disk_event(
        self, event: wire.DiskNeeded | wire.DiskWritten, deadline: Deadline
    ) -> OutputDisk:
        """Handles an event about an output disk, which it returns.

        Raises VmError for an impossible size or order, or a disk that this VM lacks, and
        NotEnoughSpace when the host's disk is too full.
        """
        disk = self.outputs.get(event.disk)
        if disk is None:
            raise VmError(f"the guest asks for the disk '{event.disk}', which it does not have")
        if isinstance(event, wire.DiskNeeded):
            disk.grow(event.size, event.content, deadline)
        else:
            disk.seal(event.size, deadline)
        return disk


@contextmanager
def running_sandbox(
    helper: Helper,
    acceleration: Acceleration,
    resources: Resources,
    *,
    directory: Path,
    output: Path,
    transcript: ConsoleLog,
    deadline: Deadline,
    note: Callable[[str], None],
    layers: Sequence[Path] = (),
    inspected: Disk | None = None,
    more_outputs: Mapping[str, Path] = MappingProxyType({}),
    inputs: Mapping[str, Path] = MappingProxyType({}),
    plain: bool = False,
    save_memory: bool = True,
) -> Iterator[Sandbox]:
    """Runs a helper VM until the context ends; only the output disks remain of it.

    `directory` is the VM's own. The scratch disk is empty, or an overlay over the frozen disks
    `layers`, the lowest first. The disk `inspected` replaces the packages disk. The VM reads the
    disks `inputs`, files by their serial numbers. With `plain` the machine always boots, and no
    agent waits in it for orders. Without `save_memory` it boots unless the cache has its saved
    memory. `note` receives remarks. The VM reaches no network until `Sandbox.connect_outside`.
    """
    directory.mkdir(mode=0o700)
    scratch = directory / "scratch.qcow2"
    make_disk(scratch, resources.scratch, deadline, what=SCRATCH_STEP)
    outputs = _output_disks({"output": output, **more_outputs})
    packages = _make_empty(directory / "packages.squashfs", PACKAGES_BYTES, 0o600)
    disks = (
        Disk(scratch, "qcow2", "scratch", backing=tuple(layers)),
        outputs[0],
        inspected or Disk(packages, "raw", "packages", read_only=True),
        *outputs[1:],
        *(Disk(path, "raw", name, read_only=True) for name, path in inputs.items()),
    )
    spec = _machine(helper, acceleration, resources, disks)
    program = pack()
    content = f"{program.name} {helper.identity()}"
    places = Places(directory, transcript, cache_directory() / "warm", note)
    boot = deadline.sooner(BOOT_SECONDS * acceleration.factor, "starting the helper VM")
    with ExitStack() as stack:
        machine, agent = start(
            spec, program, content, places, stack, boot, plain=plain, save_memory=save_memory
        )
        machine.monitor.connect_outside(False, boot)
        with machine.monitor.blaming_disks():
            yield Sandbox(machine, agent, disks[0], disks[2], outputs)


def _machine(
    helper: Helper, acceleration: Acceleration, resources: Resources, disks: Sequence[Disk]
) -> MachineSpec:
    vm = acceleration.architecture.vm
    command_line = COMMAND_LINE.format(console=vm.console, words=vm.kernel_words)
    return MachineSpec(
        accelerator=acceleration.name,
        architecture=acceleration.architecture,
        memory=resources.memory,
        cpus=resources.cpus,
        disks=(Disk(helper.root, "raw", "helper-root", read_only=True), *disks),
        direct_boot=DirectBoot(helper.kernel, helper.initrd, command_line),
        network="two-cards",
    )


def _output_disks(paths: Mapping[str, Path]) -> list[Disk]:
    """Makes the disks that the guest grows, by their serial numbers."""
    disks = [Disk(path, "raw", name) for name, path in paths.items()]
    for disk in disks:
        _make_empty(disk.path, MIB, 0o644)
    return disks


def _make_empty(disk: Path, size: int, mode: int) -> Path:
    disk.touch(mode=mode)
    os.truncate(disk, size)
    return disk

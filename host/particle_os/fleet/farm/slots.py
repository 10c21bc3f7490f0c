"""The slots of a worker: the number of builds that a machine runs at a time, and what it has."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_os import __version__
from particle_os.architecture import ARCHITECTURES, usual
from particle_os.errors import InfrastructureError
from particle_os.fleet.farm.names import SLOT, kvm_of
from particle_os.fleet.order import Order
from particle_os.jobs.host import doctor
from particle_os.sandbox import agent
from particle_os.system.workspace import free_bytes
from particle_os.vm import accel

# Bytes that a build needs: the helper VM and the controller, and the disks.
BUILD_MEMORY, BUILD_ROOM = 2560 << 20, 6 << 30
MEMORY_FILE = Path("/proc/meminfo")


@dataclass(frozen=True)
class WorkerMachine:
    """The processors of a machine, its free memory and disk in bytes, and whether it has KVM.

    KVM counts when a guest has run under it. It runs machines of the usual architecture only.
    """

    processors: int
    memory: int
    room: int
    kvm: bool

    @classmethod
    def here(cls, cache: Path) -> WorkerMachine:
        """This machine; `cache` is on the disk that counts."""
        return cls(
            processors=len(os.sched_getaffinity(0)),
            memory=_free_memory(),
            room=free_bytes(cache),
            kvm=has_kvm(cache) or False,
        )

    def slots(self) -> int:
        """The number of builds at a time. Raises InfrastructureError when there is room for none.

        An emulated machine keeps more than one processor busy.
        """
        busy = self.processors if self.kvm else self._emulated()
        found = {
            "memory": self.memory // BUILD_MEMORY,
            "room on the disk of the cache": self.room // BUILD_ROOM,
        }
        for what, count in found.items():
            if count < 1:
                raise InfrastructureError(
                    f"this machine has too little {what} for a build",
                    hint=f"A build needs {BUILD_MEMORY >> 20} MiB of memory and "
                    f"{BUILD_ROOM >> 30} GiB of disk; '--slots 1' tries it anyway.",
                )
        return max(1, min(busy, *found.values()))

    def foreign(self, count: int) -> int:
        """The number of builds at a time, of `count` slots, whose architecture is not this one's.

        They are emulated even where KVM runs the others.
        """
        return min(count, max(1, self._emulated())) if self.kvm else count

    def _emulated(self) -> int:
        """The number of emulated machines that keep the processors busy."""
        return self.processors // 2


def has_kvm(cache: Path) -> bool | None:
    """Whether builds of this machine run under KVM; None if no build has tried it yet."""
    return accel.usable(usual(), cache / accel.KVM_MEMORY)


def _free_memory() -> int:
    """The bytes of memory that programs can take (proc(5), MemAvailable)."""
    for line in MEMORY_FILE.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    return 0


@functools.cache
def version() -> str:
    """The version of particle-os as a resource: a worker builds for clients of its own version."""
    return f"particle-os-{__version__}-{agent.pack().sha256[:12]}"


def resources(
    count: int,
    *,
    kvm: bool,
    foreign: int | None = None,
    architectures: Sequence[str] | None = None,
) -> dict[str, float]:
    """The resources of a worker with so many slots, by default for what this machine can build.

    It builds `foreign` images of other architectures at a time; None stands for all slots. `kvm`
    counts for images of this machine's architecture.
    """
    own = usual().name
    able = doctor.architectures() if architectures is None else architectures
    found = dict.fromkeys([SLOT, *able, version(), *([kvm_of(own)] if kvm else [])], float(count))
    if foreign is not None:
        found |= dict.fromkeys([each for each in able if each != own], float(foreign))
    return found


def local_resources() -> dict[str, float]:
    """The resources of a worker on the machine of the client, which takes every build.

    No other worker comes, so the build itself says what this machine lacks.
    """
    found = resources(1, kvm=False, architectures=[*ARCHITECTURES])
    return found | dict.fromkeys(map(kvm_of, ARCHITECTURES), 1.0)


def demands(order: Order) -> dict[str, float]:
    """The resources that the build of an image takes."""
    kvm = [kvm_of(order.architecture)] if order.options.accel == "kvm" else []
    return dict.fromkeys([SLOT, order.architecture, version(), *kvm], 1.0)


def fitting(
    workers: Mapping[str, Mapping[str, float]], wanted: Sequence[str] | Mapping[str, float]
) -> int:
    """The number of builds with the demands `wanted` that the workers can run at a time."""
    return sum(int(min(has.get(name, 0) for name in wanted)) for has in workers.values())


def misfits(workers: Mapping[str, Mapping[str, float]], wanted: Mapping[str, float]) -> list[str]:
    """The reason of each worker why it takes no build with these demands."""
    found = []
    for name, has in workers.items():
        lacks = next((each for each in wanted if has.get(each, 0) < 1), None)
        if lacks is None:
            continue
        if lacks.startswith("particle-os-"):
            others = [each for each in has if each.startswith("particle-os-")]
            found.append(f"{name} has {others[0] if others else 'no particle-os'}, not {lacks}")
        elif lacks == SLOT:
            found.append(f"{name} takes no builds now: its disk is full")
        else:
            found.append(f"{name} has no {lacks}")
    return found

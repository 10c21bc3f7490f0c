"""The machines of a boot test: the combinations of firmware, devices, memory and processors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from itertools import product
from pathlib import Path

from particle_agent.contract.values import bytes_of

from particle_os.architecture import AMD64, Architecture
from particle_os.boot.machines.extras import SEED, seed_disk
from particle_os.boot.observation.verdict import machine_name
from particle_os.recipe.boot_options import Devices, StaticAddress
from particle_os.vm import firmware as firmwares
from particle_os.vm.argv import Disk
from particle_os.vm.devices import tpm
from particle_os.vm.devices.hardware import VIRTIO, Hardware
from particle_os.vm.devices.user_network import UserNetwork
from particle_os.vm.firmware import Firmware


@dataclass(frozen=True)
class Variant:
    """One combination; `devices` sets it apart from the others and is empty for the usual machine.

    `memory` is in bytes. With None, the checks and the host decide.
    """

    firmware: Firmware = "bios"
    devices: str = ""
    hardware: Hardware = VIRTIO
    memory: int | None = None
    processors: int | None = None
    # The addresses for an image with a static address.
    addresses: UserNetwork | None = None
    # User data for cloud-init.
    user_data: bytes | None = None

    @property
    def name(self) -> str:
        """The name of the machine in results, and of its directory of evidence."""
        return machine_name(self.firmware, self.devices)

    def more_disks(self, directory: Path) -> tuple[Disk, ...]:
        """Makes the disk with the user data in `directory`, if there is such data."""
        if self.user_data is None:
            return ()
        return (seed_disk(self.user_data, directory / SEED),)


USUAL = Variant()


def variants(
    names: Sequence[Firmware],
    devices: Devices,
    address: StaticAddress | None = None,
    user_data: str | None = None,
    architecture: Architecture = AMD64,
) -> tuple[Variant, ...]:
    """Returns all combinations, with the image's static address and user data, if it has them.

    Raises InfrastructureError when the host lacks a firmware or cannot emulate a TPM.
    """
    for name in names:
        firmwares.check(name, architecture)
    if devices.tpm:
        tpm.check()
    data = None if user_data is None else user_data.encode()
    sizes: Sequence[str | None] = devices.memory or (None,)
    counts: Sequence[int | None] = devices.processors or (None,)
    found = []
    for firmware, disk, card, size, count in product(
        names, devices.disk, devices.network_card, sizes, counts
    ):
        words: list[str] = [disk] if disk != "virtio" else []
        words += [card] if card != "virtio" else []
        words += ["tpm"] if devices.tpm else []
        # A single size is the user's choice for all machines, and sets none apart.
        words += [size] if size is not None and len(sizes) > 1 else []
        words += [f"{count}cpu"] if count is not None and len(counts) > 1 else []
        memory = None if size is None else bytes_of(size)
        hardware = Hardware(disk, card, devices.tpm)
        addresses = _user_network(address)
        found.append(Variant(firmware, "-".join(words), hardware, memory, count, addresses, data))
    return tuple(found)


def _user_network(address: StaticAddress | None) -> UserNetwork | None:
    if address is None:
        return None
    gateway = None if address.gateway is None else IPv4Address(address.gateway)
    return UserNetwork(IPv4Interface(address.address), gateway)

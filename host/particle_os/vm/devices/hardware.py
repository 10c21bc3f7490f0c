"""The kinds of devices of a machine that boots an image, as options of QEMU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from particle_os.architecture import AMD64, MachineFacts

DiskBus = Literal["virtio", "nvme", "ahci", "usb", "scsi"]
CardModel = Literal["virtio", "e1000e"]
DISK_BUSES: tuple[DiskBus, ...] = get_args(DiskBus)
CARD_MODELS: tuple[CardModel, ...] = get_args(CardModel)
# What a guest needs for a disk, in words: the device, and Linux' modules for it.
DISKS: dict[DiskBus, str] = {
    "virtio": "a virtio disk (modules virtio_blk and virtio_pci)",
    "nvme": "an NVMe disk (module nvme)",
    "ahci": "a SATA disk on an AHCI controller (modules ahci and sd_mod)",
    "usb": "a USB disk on an xHCI controller (modules xhci_pci, usb_storage and sd_mod)",
    "scsi": "a SCSI disk on a virtio controller (modules virtio_scsi, virtio_pci and sd_mod)",
}
# The controllers that no machine has. `MachineFacts` has those that some machines lack.
CONTROLLERS: dict[str, str] = {"usb": "qemu-xhci,id=usb", "scsi": "virtio-scsi-pci,id=scsi"}
FRONT_ENDS: dict[DiskBus, str] = {
    "virtio": "virtio-blk-pci",
    "nvme": "nvme",
    "ahci": "ide-hd",
    "usb": "usb-storage",
    "scsi": "scsi-hd",
}
BUSES: dict[str, str] = {"usb": "usb.0", "scsi": "scsi.0"}
CARDS: dict[CardModel, str] = {"virtio": "virtio-net-pci", "e1000e": "e1000e"}
# An AHCI controller has six ports.
MOST_DISKS = 6
# Unix socket of swtpm in the machine's directory.
TPM_SOCKET = "tpm.sock"


@dataclass(frozen=True)
class Hardware:
    """The kind of all disks and of the network card, and whether there is a TPM 2.0."""

    disk: DiskBus = "virtio"
    card: CardModel = "virtio"
    tpm: bool = False


VIRTIO = Hardware()


def disk_devices(
    bus: DiskBus, disks: Sequence[tuple[str, str]], vm: MachineFacts = AMD64.vm
) -> Iterator[str]:
    """Yields the values of `-device` for disks, each given by its node and its serial number.

    The firmware tries the first disk first.
    """
    controllers = {**CONTROLLERS, **vm.controllers}
    buses = {**BUSES, **vm.disk_buses}
    if disks and bus in controllers:
        yield controllers[bus]
    for index, (node, serial) in enumerate(disks):
        device: dict[str, object] = {"driver": FRONT_ENDS[bus], "drive": node, "serial": serial}
        if bus in buses:
            device["bus"] = buses[bus].format(index)
        if bus != "nvme":
            # When the host's disk is full, the guest gets an error; otherwise QEMU would stop the
            # guest. An NVMe disk reports every error to the guest.
            device.update(werror="report", rerror="report")
        yield json.dumps({**device, "bootindex": index + 1})


def card_device(model: CardModel, network: str) -> str:
    """Returns the value of `-device` for a card of QEMU's `network`, without a boot ROM."""
    return f"{CARDS[model]},netdev={network},romfile="


def tpm_options(device: str) -> list[str]:
    """Returns the options for a TPM 2.0, which swtpm emulates behind the socket TPM_SOCKET."""
    return [
        *("-chardev", f"socket,id=tpm,path={TPM_SOCKET}"),
        *("-tpmdev", "emulator,id=tpm,chardev=tpm"),
        *("-device", f"{device},tpmdev=tpm"),
    ]

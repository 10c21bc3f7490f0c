"""QEMU's command line, from a typed description. The functions are pure.

Paths are relative to QEMU's working directory, so that the name of a Unix socket stays short in a
deep directory, too. Options: https://www.qemu.org/docs/master/system/invocation.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from particle_os.architecture import AMD64, Architecture
from particle_os.vm import smbios
from particle_os.vm.devices import hardware
from particle_os.vm.devices.hardware import VIRTIO, CardModel, Hardware
from particle_os.vm.devices.user_network import UserNetwork
from particle_os.vm.traffic import FRAME_BYTES

QMP_SOCKET = "qmp.sock"
# QEMU's names of the two networks of a helper VM; guest/init.sh knows their addresses. No network
# of the world has the addresses of `control` (TEST-NET-1, RFC 5737), so it hides none of them.
CONTROL, OUTSIDE = "control", "outside"
CONTROL_NETWORK = "192.0.2.0/24"
# Pipes in QEMU's working directory, for what goes through the card `OUTSIDE` (`vm.capture`).
SENT, RECEIVED = "sent.pcap", "received.pcap"
MIB = 1 << 20

# QEMU's names of disk image formats.
ImageFormat = Literal[
    "raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx",
    "qcow", "qed", "parallels", "bochs", "cloop", "dmg",
]  # fmt: skip


# The formats whose files can refer to a backing file.
REFERRING: frozenset[ImageFormat] = frozenset({"qcow2", "vmdk", "qcow", "qed"})


@dataclass(frozen=True)
class StandaloneImage:
    """An image file of the user, which no machine writes and which refers to no other file."""

    path: Path
    format: ImageFormat


@dataclass(frozen=True)
class Disk:
    """A disk, which the guest finds by its `serial`.

    `backing` lists the qcow2 files below a qcow2 overlay, the lowest first, above `image` if there
    is one. It is empty when the file must stand alone. With None, QEMU takes the backing file from
    the file's header.
    """

    path: Path
    format: ImageFormat
    serial: str
    read_only: bool = False
    backing: tuple[Path, ...] | None = None
    image: StandaloneImage | None = None


@dataclass(frozen=True)
class EmptyDisk:
    """A disk of zeroes: the placeholder of another disk in a machine that is saved."""

    serial: str


@dataclass(frozen=True)
class DirectBoot:
    """A kernel that QEMU loads directly, without firmware or boot loader."""

    kernel: Path
    initrd: Path
    command_line: str


@dataclass(frozen=True)
class Uefi:
    """UEFI instead of QEMU's BIOS: the program, and this machine's copy of the variables.

    With `secure`, only the firmware may write the variables, and it starts only signed programs.
    """

    code: Path
    variables: Path
    secure: bool = False


@dataclass(frozen=True)
class Forward:
    """A TCP port of the guest, and the port on 127.0.0.1 that leads to it.

    The kernel chooses the host's port 0.
    """

    guest: int
    host: int = 0


@dataclass(frozen=True)
class MachineSpec:
    """One virtual machine. `memory` is in bytes.

    Without `direct_boot`, the firmware boots the first disk. `credentials` are credentials of
    systemd, passed through SMBIOS (systemd.system-credentials(7)); `running` writes them to files.
    """

    accelerator: Literal["kvm", "tcg"]
    memory: int
    cpus: int
    architecture: Architecture = AMD64
    # Adds an IOMMU that remaps interrupts, which Linux needs to use x2APIC. When QEMU 10.0 emulates
    # several processors, a write to the memory of an APIC is lost, or QEMU aborts, while another
    # processor has a device's memory mapped. An x2APIC has registers instead of memory.
    x2apic: bool = False
    disks: tuple[Disk | EmptyDisk, ...] = ()
    direct_boot: DirectBoot | None = None
    uefi: Uefi | None = None
    # With "isolated", the guest has an address and reaches nothing. With "isolated-ssh", the host
    # also reaches the guest's SSH server, on a port of 127.0.0.1 that the kernel chooses. With
    # "two-cards", the first card is as with "isolated-ssh", and the guest reaches the network
    # through the second one, whose cable the host can take out (`Monitor.connect_outside`).
    network: Literal["none", "isolated", "isolated-ssh", "two-cards"] = "none"
    credentials: dict[str, bytes] = field(default_factory=dict)
    # Further TCP ports of the guest that the host reaches on ports of 127.0.0.1.
    forwards: tuple[Forward, ...] = ()
    # The addresses of an isolated network; with None, the guest gets QEMU's by DHCP.
    addresses: UserNetwork | None = None
    hardware: Hardware = VIRTIO
    # Names of Unix sockets: the second serial port, and the firmware's debug port. A machine with
    # the latter stands still until `Monitor.run`.
    probe_socket: str | None = None
    firmware_socket: str | None = None
    # Whether the guest may restart; otherwise a restart ends QEMU.
    reboots: bool = False
    # Whether QEMU waits for a saved state (`Monitor.restore`) instead of booting.
    restored: bool = False


def qemu_argv(spec: MachineSpec) -> list[str]:
    """Returns QEMU's command, which runs in the foreground with the console on stdin and stdout."""
    vm = spec.architecture.vm
    argv = [vm.qemu, "-nodefaults", "-no-user-config", "-display", "none"]
    argv += [] if spec.reboots else ["-no-reboot"]
    argv += ["-machine", vm.machine_with_kvm if spec.accelerator == "kvm" else vm.machine]
    if spec.x2apic:
        argv += ["-device", "intel-iommu,intremap=on,eim=on,dma-translation=off"]
    if spec.uefi is not None:
        argv += _uefi(spec.uefi, vm.secure_flash)
    if spec.accelerator == "kvm":
        argv += ["-accel", "kvm", "-cpu", "host"]
    else:
        argv += ["-accel", "tcg,thread=multi", "-cpu", vm.emulated_processor]
    argv += ["-m", f"{spec.memory // MIB}M", "-smp", str(spec.cpus)]
    argv += ["-rtc", "base=utc"]
    argv += ["-device", "vmgenid,guid=auto"] if vm.generation_id else []
    argv += ["-object", "rng-random,id=rng0,filename=/dev/urandom"]
    argv += ["-device", "virtio-rng-pci,rng=rng0"]
    argv += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    if spec.probe_socket:
        argv += ["-chardev", f"socket,id=probe,path={spec.probe_socket},server=on,wait=off"]
        port, device = "chardev:probe", f"{vm.answers_device},chardev=probe"
        argv += ["-device", device] if vm.answers_device else ["-serial", port]
    if spec.firmware_socket:
        # The words of a firmware that runs before the socket has a reader are lost.
        argv += ["-S"]
        argv += ["-chardev", f"socket,id=firmware,path={spec.firmware_socket},server=on,wait=off"]
        # Without such a port, the socket stays silent.
        argv += ["-device", f"{vm.firmware_port},chardev=firmware"] if vm.firmware_port else []
    argv += ["-chardev", f"socket,id=qmp,path={QMP_SOCKET},server=on,wait=off"]
    argv += ["-mon", "chardev=qmp,mode=control"]
    argv += _network(spec)
    argv += _disks(spec)
    argv += hardware.tpm_options(vm.tpm) if spec.hardware.tpm else []
    if spec.restored:
        argv += ["-incoming", "defer"]
    if spec.direct_boot is None:
        argv += ["-device", vm.screen]
    else:
        argv += ["-kernel", str(spec.direct_boot.kernel), "-initrd", str(spec.direct_boot.initrd)]
        argv += ["-append", spec.direct_boot.command_line]
    for file in smbios.file_names(spec.credentials):
        argv += ["-smbios", f"file={file}"]
    # This forbids QEMU to start programs, gain privileges, and make obsolete system calls.
    argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    return argv


def _network(spec: MachineSpec) -> list[str]:
    """Returns the options for the network cards.

    The host reaches the guest through the first card only, and the guest reaches nothing through
    it.
    """
    if spec.network == "none":
        return []
    given = spec.addresses
    forwards = (*([] if spec.network == "isolated" else [Forward(22)]), *spec.forwards)
    guest = "" if given is None else str(given.guest.ip)
    modes = ["restrict=on", *(given.modes() if given is not None else [])]
    modes += [f"hostfwd=tcp:127.0.0.1:{each.host}-{guest}:{each.guest}" for each in forwards]
    model = spec.hardware.card
    if spec.network != "two-cards":
        return _card("net0", model, *modes)
    argv = _card(CONTROL, model, f"net={CONTROL_NETWORK}", *modes) + _card(OUTSIDE, model)
    # QEMU's names of the queues are the network's, not the guest's.
    for file, queue in ((SENT, "rx"), (RECEIVED, "tx")):
        dump = f"filter-dump,id={queue},netdev={OUTSIDE},queue={queue},file={file}"
        argv += ["-object", f"{dump},maxlen={FRAME_BYTES}"]
    return argv


def _card(name: str, model: CardModel, *modes: str) -> list[str]:
    backend = ",".join([f"user,id={name},ipv6=off", *modes])
    return ["-netdev", backend, "-device", hardware.card_device(model, name)]


def _disks(spec: MachineSpec) -> list[str]:
    nodes = [(f"disk-{disk.serial}", disk.serial) for disk in spec.disks]
    argv = []
    for disk, (node, _) in zip(spec.disks, nodes, strict=True):
        argv += ["-blockdev", json.dumps(blockdev(disk, node))]
    for device in hardware.disk_devices(spec.hardware.disk, nodes, spec.architecture.vm):
        argv += ["-device", device]
    return argv


def _uefi(uefi: Uefi, secure_flash: Sequence[str]) -> list[str]:
    """Returns the options for two flash memories, one with the program, one with the variables.

    `secure_flash` are the further ones of a secure machine.
    """
    argv = []
    for node, path, read_only in (
        ("uefi-code", uefi.code, True),
        ("uefi-variables", uefi.variables, False),
    ):
        file = {"driver": "file", "filename": str(path)}
        flash = {"driver": "raw", "node-name": node, "read-only": read_only, "file": file}
        argv += ["-blockdev", json.dumps(flash)]
    argv += ["-machine", "pflash0=uefi-code,pflash1=uefi-variables"]
    return [*argv, *secure_flash] if uefi.secure else argv


def blockdev(disk: Disk | EmptyDisk, node: str) -> dict[str, object]:
    """Returns a disk's back end for `blockdev-add` and `-blockdev` (QAPI: BlockdevOptions)."""
    if isinstance(disk, EmptyDisk):
        return {"driver": "null-co", "node-name": node, "size": MIB, "read-zeroes": True}
    # The disk is thrown away, or published after our own fsync, so QEMU need not flush it.
    cache = {"no-flush": True}
    file: dict[str, object] = {"driver": "file", "filename": str(disk.path), "cache": cache}
    if disk.read_only:
        file["locking"] = "off"
    backing = _lowest(disk.image)
    for path in disk.backing or ():
        below = {"driver": "file", "filename": str(path), "locking": "off", "read-only": True}
        backing = {"driver": "qcow2", "read-only": True, "file": below, "backing": backing}
    chain = {} if disk.backing is None else {"backing": backing}
    return {
        **chain,
        "driver": disk.format,
        "node-name": node,
        "read-only": disk.read_only,
        "discard": "unmap",
        "detect-zeroes": "off" if disk.read_only else "unmap",
        "cache": cache,
        "file": file,
    }


def _lowest(image: StandaloneImage | None) -> dict[str, object] | None:
    if image is None:
        return None
    file = {"driver": "file", "filename": str(image.path), "read-only": True}
    alone = {"backing": None} if image.format in REFERRING else {}
    return {**alone, "driver": image.format, "read-only": True, "file": file}


def image_options(path: Path, image_format: ImageFormat) -> str:
    """Returns an image file as `qemu-img --image-opts` wants it.

    A bare name such as `nbd:HOST:PORT` or `json:{...}` would be a protocol, and `-r` an option.
    """
    name = str(path.absolute()).replace(",", ",,")
    return f"driver={image_format},file.driver=file,file.filename={name}"

"""QEMU's command line, from a typed description. Pure: nothing is looked up or started here.

Paths are relative to the directory that QEMU runs in, so that a Unix socket's name stays short
however deep that directory lies. Options: https://www.qemu.org/docs/master/system/invocation.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from particle_os.vm import smbios

QMP_SOCKET = "qmp.sock"
# All that QEMU emulates, but for what is slow to emulate: `rep movsb` copies byte by byte (erms,
# fsrm make the guest prefer it), page tables of five levels, and opening the user's memory anew at
# each access by the kernel (smap). Copies take two thirds of the time, program starts four fifths.
EMULATED_CPU = "max,erms=off,fsrm=off,la57=off,smap=off"
MIB = 1 << 20


# What QEMU calls the formats of disk images.
ImageFormat = Literal[
    "raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx",
    "qcow", "qed", "parallels", "bochs", "cloop", "dmg",
]  # fmt: skip


@dataclass(frozen=True)
class Disk:
    """A virtio disk; `serial` is how the guest finds it.

    `backing` is what a qcow2 overlay stands on, itself qcow2, the lowest first; empty where the
    file must stand alone, None leaves that to what the file says.
    """

    path: Path
    format: ImageFormat
    serial: str
    read_only: bool = False
    backing: tuple[Path, ...] | None = None


@dataclass(frozen=True)
class EmptyDisk:
    """A virtio disk of zeroes, which a machine that is to be saved has in another one's place."""

    serial: str


@dataclass(frozen=True)
class DirectBoot:
    """A kernel that QEMU loads itself, without firmware or boot loader."""

    kernel: Path
    initrd: Path
    command_line: str


@dataclass(frozen=True)
class Uefi:
    """UEFI in place of QEMU's BIOS: its program, and a copy of its variables for this machine.

    With `secure`, only it may write the variables, and it starts only what is signed.
    """

    code: Path
    variables: Path
    secure: bool = False


@dataclass(frozen=True)
class MachineSpec:
    """One virtual machine. `memory` is in bytes.

    Without `direct_boot` the first disk is booted by the firmware. `credentials` are systemd's,
    handed in through SMBIOS (systemd.system-credentials(7)); `running` writes them to files.
    """

    accelerator: Literal["kvm", "tcg"]
    memory: int
    cpus: int
    # A unit that remaps interrupts, in the mode without which Linux uses no x2APIC. Of several
    # emulated processors, QEMU 10.0 loses what one writes to the memory of its APIC, or aborts,
    # while another one has a device's memory mapped. An x2APIC has registers instead.
    x2apic: bool = False
    disks: tuple[Disk | EmptyDisk, ...] = ()
    direct_boot: DirectBoot | None = None
    uefi: Uefi | None = None
    # "isolated" has an address and reaches nothing; "ssh" reaches the network, and the host
    # reaches its SSH server on a port of 127.0.0.1 that the kernel chooses.
    # "isolated-ssh" is both: the host reaches in, and nothing is reached from within.
    network: Literal["none", "isolated", "isolated-ssh", "ssh"] = "none"
    credentials: dict[str, bytes] = field(default_factory=dict)
    # More TCP ports of the guest that the host reaches on ports of 127.0.0.1.
    forwards: tuple[int, ...] = ()
    # Unix sockets, by name: a second serial port, and what the firmware has to say.
    probe_socket: str | None = None
    firmware_socket: str | None = None
    # Whether a guest that restarts does so; QEMU ends otherwise.
    reboots: bool = False
    # Waits for a saved state (`Monitor.restore`) instead of booting.
    restored: bool = False


def qemu_argv(spec: MachineSpec, program: str = "qemu-system-x86_64") -> list[str]:
    """The command that runs the machine in the foreground, its console on standard in/output."""
    argv = [program, "-nodefaults", "-no-user-config", "-display", "none"]
    argv += [] if spec.reboots else ["-no-reboot"]
    argv += ["-machine", "q35,graphics=off,vmport=off"]
    if spec.x2apic:
        argv += ["-device", "intel-iommu,intremap=on,eim=on,dma-translation=off"]
    if spec.uefi is not None:
        argv += _uefi(spec.uefi)
    if spec.accelerator == "kvm":
        argv += ["-accel", "kvm", "-cpu", "host"]
    else:
        argv += ["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU]
    argv += ["-m", f"{spec.memory // MIB}M", "-smp", str(spec.cpus)]
    argv += ["-rtc", "base=utc", "-device", "vmgenid,guid=auto"]
    argv += ["-object", "rng-random,id=rng0,filename=/dev/urandom"]
    argv += ["-device", "virtio-rng-pci,rng=rng0"]
    argv += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    if spec.probe_socket:
        argv += ["-chardev", f"socket,id=probe,path={spec.probe_socket},server=on,wait=off"]
        argv += ["-serial", "chardev:probe"]
    if spec.firmware_socket:
        argv += ["-chardev", f"socket,id=firmware,path={spec.firmware_socket},server=on,wait=off"]
        argv += ["-device", "isa-debugcon,iobase=0x402,chardev=firmware"]
    argv += ["-chardev", f"socket,id=qmp,path={QMP_SOCKET},server=on,wait=off"]
    argv += ["-mon", "chardev=qmp,mode=control"]
    if spec.network != "none":
        modes = ["restrict=on"] if spec.network.startswith("isolated") else []
        ports = (*([22] if spec.network.endswith("ssh") else []), *spec.forwards)
        modes += [f"hostfwd=tcp:127.0.0.1:0-:{port}" for port in ports]
        argv += ["-netdev", ",".join(["user,id=net0,ipv6=off", *modes])]
        argv += ["-device", "virtio-net-pci,netdev=net0,romfile="]
    for index, disk in enumerate(spec.disks):
        node = f"disk-{disk.serial}"
        argv += ["-blockdev", json.dumps(blockdev(disk, node))]
        argv += ["-device", json.dumps({**_device(disk, node), "bootindex": index + 1})]
    if spec.restored:
        argv += ["-incoming", "defer"]
    if spec.direct_boot is None:
        argv += ["-device", "VGA"]
    else:
        argv += ["-kernel", str(spec.direct_boot.kernel), "-initrd", str(spec.direct_boot.initrd)]
        argv += ["-append", spec.direct_boot.command_line]
    for file in smbios.file_names(spec.credentials):
        argv += ["-smbios", f"file={file}"]
    # QEMU starts no program, gains no privilege, and uses no obsolete system call from here on.
    argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    return argv


def _uefi(uefi: Uefi) -> list[str]:
    """Two flash memories: one holds the program, the other the variables."""
    argv = []
    for node, path, read_only in (
        ("uefi-code", uefi.code, True),
        ("uefi-variables", uefi.variables, False),
    ):
        file = {"driver": "file", "filename": str(path)}
        flash = {"driver": "raw", "node-name": node, "read-only": read_only, "file": file}
        argv += ["-blockdev", json.dumps(flash)]
    argv += ["-machine", "pflash0=uefi-code,pflash1=uefi-variables"]
    if uefi.secure:
        argv += ["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
    return argv


def blockdev(disk: Disk | EmptyDisk, node: str) -> dict[str, object]:
    """A disk's back end as `blockdev-add` and `-blockdev` take it (QAPI: BlockdevOptions)."""
    if isinstance(disk, EmptyDisk):
        return {"driver": "null-co", "node-name": node, "size": MIB, "read-zeroes": True}
    # The disk is thrown away or published after an fsync of our own: QEMU need not flush it.
    cache = {"no-flush": True}
    file: dict[str, object] = {"driver": "file", "filename": str(disk.path), "cache": cache}
    if disk.read_only:
        file["locking"] = "off"
    backing: dict[str, object] | None = None
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


def _device(disk: Disk | EmptyDisk, node: str) -> dict[str, object]:
    """A disk's front end as `-device` takes it.

    A full disk of the host is an error for the guest, not a guest that stands still for ever.
    """
    return {
        "driver": "virtio-blk-pci",
        "drive": node,
        "serial": disk.serial,
        "werror": "report",
        "rerror": "report",
    }

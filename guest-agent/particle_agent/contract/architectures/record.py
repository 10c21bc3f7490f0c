"""The facts about one architecture that the code of several folders needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

BootFirmware = Literal["bios", "uefi", "uefi-secure"]
BuildArchitecture = Literal["amd64", "arm64"]


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """The facts about the images of an architecture, which a stage needs, and a check of a disk.

    - `efi` is the suffix in the names of EFI programs (UEFI specification, 3.5.1.1), as in
      BOOTX64.EFI, and `pe_machine` the number of the machine in them (PE format, "Machine types").
    - `root_type` is the type of the root partition in a GPT (Discoverable Partitions
      Specification).
    - `consoles` are words of the kernel's command line; the last one becomes /dev/console.
    - `grub` is GRUB's name of its platform for UEFI, `grub_serial` whether its menu needs the
      driver of the serial port. Otherwise the firmware's console is that port.
    - `kernels` are Debian's packages: for virtual machines, and for all machines.
    - `firmwares` are those that a machine can have.
    - `library_links` are the directories of libraries, beside /lib, that lead to /usr.
    """

    efi: str
    pe_machine: int
    root_type: str
    consoles: tuple[str, ...]
    grub: str
    grub_serial: bool
    kernels: tuple[str, str]
    firmwares: tuple[BootFirmware, ...]
    library_links: tuple[str, ...]

    @property
    def efi_program(self) -> str:
        """The name of the program in EFI/BOOT that the firmware starts."""
        return f"BOOT{self.efi.upper()}.EFI"

    @property
    def second_stage(self) -> str:
        """The name of the program that the shim of Secure Boot starts."""
        return f"grub{self.efi}.efi"

    @property
    def kernel_hint(self) -> str:
        """The words about the kernels for a hint."""
        virtual, general = self.kernels
        return f"'{virtual}' (for virtual machines) or '{general}'"


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """The facts about the virtual machines of an architecture, as QEMU emulates them.

    - `qemu` is the program, `machine` the machine with its properties, `machine_with_kvm` the same
      under KVM.
    - `emulated_processor` is the value of -cpu without KVM.
    - `least_qemu` is the oldest major and minor version that can emulate all of it.
    - `x2apic` means that several processors need the device of `MachineSpec.x2apic`.
    - `generation_id` means that QEMU has the device vmgenid.
    - `firmware_port` is the device of the firmware's debug port, `screen` that of the screen.
    - With `text_screen`, the screen has a text mode whose cells are in memory (`screen.text`).
    - `secure_flash` are the options for flash memory that only the firmware may write.
    - `sleep` is the instruction of a processor that waits for an interrupt, if QEMU's monitor does
      not show that it waits.
    - `memory_start` is the physical address of the memory.
    - `console` is the name of the first serial port in Linux. `answers` is that of the port for the
      answers of a boot test, and `answers_device` its device; None is the second serial port.
    - `kernel_words` are words of the command line of the helper VM's kernel.
    - `target` and `descriptor_machine` are the names in the descriptors of firmware;
      `firmware_directory` and `firmware_files` (program and variables) are Debian's places of them.
    """

    qemu: str
    machine: str
    machine_with_kvm: str
    emulated_processor: str
    least_qemu: tuple[int, int]
    x2apic: bool
    generation_id: bool
    firmware_port: str | None
    screen: str
    text_screen: bool
    secure_flash: tuple[str, ...]
    sleep: int | None
    memory_start: int
    console: str
    answers: str
    answers_device: str | None
    kernel_words: str
    controllers: Mapping[str, str]
    disk_buses: Mapping[str, str]
    tpm: str
    target: str
    descriptor_machine: str
    firmware_directory: str
    firmware_files: Mapping[BootFirmware, tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture.

    `name` is Debian's name, and `uname` that of uname(2). `template` is the usual template of the
    helper VM. `elf_machine` is the number in ELF programs.
    """

    name: BuildArchitecture
    uname: str
    elf_machine: int
    template: str
    image: ImageFacts
    vm: MachineFacts

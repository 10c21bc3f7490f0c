"""The architecture arm64: machines with UEFI and ACPI, which Arm calls SystemReady."""

from __future__ import annotations

from particle_agent.contract.architectures.record import Architecture, ImageFacts, MachineFacts

ARM64 = Architecture(
    name="arm64",
    uname="aarch64",
    elf_machine=183,
    template="debian-trixie-arm64",
    image=ImageFacts(
        efi="aa64",
        pe_machine=0xAA64,
        root_type="b921b045-1df0-41c3-af44-4c6f280d3fae",
        consoles=("console=tty0", "console=ttyAMA0,115200"),
        grub="arm64-efi",
        grub_serial=False,
        kernels=("linux-image-cloud-arm64", "linux-image-arm64"),
        firmwares=("uefi", "uefi-secure"),
        library_links=(),
    ),
    vm=MachineFacts(
        qemu="qemu-system-aarch64",
        machine="virt,gic-version=3,dump-guest-core=off",
        machine_with_kvm="virt,gic-version=max,dump-guest-core=off",
        # Every feature that QEMU emulates, except for the slow ones: signed pointers, which cost a
        # hash at each call, and vectors without a fixed length.
        emulated_processor="max,pauth=off,sve=off,sme=off",
        # No older version was tried.
        least_qemu=(10, 0),
        x2apic=False,
        generation_id=False,
        firmware_port=None,
        # A frame buffer in memory, which firmware and kernel know without a driver of their own.
        screen="ramfb",
        text_screen=False,
        # The firmware emulates the variables that only it may write.
        secure_flash=(),
        # WFI (Arm Architecture Reference Manual).
        sleep=0xD503207F,
        memory_start=1 << 30,
        console="ttyAMA0",
        # A second serial port of the machine takes the console of older firmware to itself.
        answers="ttyS0",
        answers_device="pci-serial",
        # Protections between users, which a VM that only root uses does not need. They cost an
        # emulated processor a third of its time.
        kernel_words="mitigations=off kpti=off",
        controllers={"ahci": "ich9-ahci,id=ahci"},
        disk_buses={"ahci": "ahci.{}"},
        tpm="tpm-tis-device",
        target="aarch64",
        descriptor_machine="virt-10.0",
        firmware_directory="/usr/share/AAVMF",
        firmware_files={
            "uefi": ("AAVMF_CODE.fd", "AAVMF_VARS.fd"),
            "uefi-secure": ("AAVMF_CODE.ms.fd", "AAVMF_VARS.ms.fd"),
        },
    ),
)

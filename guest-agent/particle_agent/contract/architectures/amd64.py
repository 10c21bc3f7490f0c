"""The architecture amd64: PCs."""

from __future__ import annotations

from particle_agent.contract.architectures.record import Architecture, ImageFacts, MachineFacts

AMD64 = Architecture(
    name="amd64",
    uname="x86_64",
    elf_machine=62,
    template="debian-trixie",
    image=ImageFacts(
        efi="x64",
        pe_machine=0x8664,
        root_type="4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
        consoles=("console=tty0", "console=ttyS0,115200"),
        grub="x86_64-efi",
        grub_serial=True,
        kernels=("linux-image-cloud-amd64", "linux-image-amd64"),
        firmwares=("bios", "uefi", "uefi-secure"),
        library_links=("lib64",),
    ),
    vm=MachineFacts(
        qemu="qemu-system-x86_64",
        machine="q35,graphics=off,vmport=off,dump-guest-core=off",
        machine_with_kvm="q35,graphics=off,vmport=off,dump-guest-core=off",
        # Every feature that QEMU emulates, except for the slow ones: `rep movsb`, which copies byte
        # by byte (guests prefer it with erms and fsrm), page tables of five levels (la57), and the
        # opening of user memory at each access by the kernel (smap). Copies then take two thirds of
        # the time, and program starts four fifths.
        emulated_processor="max,erms=off,fsrm=off,la57=off,smap=off",
        least_qemu=(7, 1),
        x2apic=True,
        generation_id=True,
        firmware_port="isa-debugcon,iobase=0x402",
        screen="VGA",
        text_screen=True,
        secure_flash=(
            "-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
        ),
        sleep=None,
        memory_start=0,
        console="ttyS0",
        answers="ttyS1",
        answers_device=None,
        # lpj skips the calibration of each later processor, which takes a second; noreplace-smp
        # skips the patching of the kernel code for it.
        # no_timer_check: the kernel expects a few interrupts of its timer within a moment. An
        # emulator on a busy host misses them, and the kernel panics ("IO-APIC + timer doesn't
        # work!").
        kernel_words="lpj=4000000 noreplace-smp no_timer_check",
        # q35 has an AHCI controller with the buses ide.0 and so on.
        controllers={},
        disk_buses={"ahci": "ide.{}"},
        tpm="tpm-crb",
        target="x86_64",
        descriptor_machine="pc-q35-10.0",
        firmware_directory="/usr/share/OVMF",
        # The "ms" variables hold the Secure Boot keys of retail machines.
        firmware_files={
            "uefi": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
            "uefi-secure": ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"),
        },
    ),
)  # fmt: skip

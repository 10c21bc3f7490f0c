"""The disk that the qemu stage makes for machines of arm64."""

import re

import pytest
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.arm64 import ARM64
from particle_agent.disk import boot, grub
from particle_agent.disk.systemd_boot import shim
from particle_agent.errors import StageError
from particle_agent.stages.output.qemu import FIRMWARES, Qemu

from .built_disk import disk, esp, table

FILES = {
    "/usr/lib/systemd/boot/efi/linuxaa64.efi.stub": "stub",
    "/usr/lib/systemd/boot/efi/systemd-bootaa64.efi": "systemd-boot of arm64",
    "/usr/lib/grub/arm64-efi/moddep.lst": "normal:\n",
    "/usr/lib/grub/arm64-efi/normal.mod": "module of arm64",
}


@pytest.fixture
def arm64(debian, monkeypatch):
    """A system of arm64 with every boot loader."""
    monkeypatch.setattr(debian, "architecture", ARM64)
    for path in debian.list("/usr/lib/systemd/boot/efi"):
        debian.remove(f"/usr/lib/systemd/boot/efi/{path}")
    debian.remove("/usr/lib/grub")
    for path, text in FILES.items():
        debian.write(path, text)
    return debian


def types(target):
    fields = [field for line in table(target) for field in line.split(", ")]
    return [field.removeprefix("type=") for field in fields if field.startswith("type=")]


def test_systemd_boot_has_the_name_that_the_firmware_of_arm64_starts(arm64):
    Qemu(boot_loader="systemd-boot").run(arm64)
    files = esp(arm64)
    assert files["EFI/BOOT/BOOTAA64.EFI"] == "systemd-boot of arm64"
    assert files["EFI/systemd/systemd-bootaa64.efi"] == "systemd-boot of arm64"
    assert not [name for name in files if "x64" in name.lower().replace("aa64", "")]


def test_the_type_of_the_root_partition_is_that_of_arm64(arm64):
    Qemu(boot_loader="systemd-boot").run(arm64)
    assert types(arm64)[-1] == "b921b045-1df0-41c3-af44-4c6f280d3fae"
    assert "LegacyBIOSBootable" not in arm64.only("sfdisk").stdin


def test_the_kernel_speaks_on_the_serial_port_of_arm64(arm64):
    assert "console=tty0 console=ttyAMA0,115200" in boot.command_line(arm64, "X")
    assert "ttyS0" not in boot.command_line(arm64, "X")


def test_grub_is_for_uefi_alone(arm64):
    Qemu(boot_loader="grub").run(arm64)
    assert types(arm64) == [
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        "b921b045-1df0-41c3-af44-4c6f280d3fae",
    ]
    assert list(esp(arm64)) == ["EFI/BOOT/BOOTAA64.EFI"]
    assert esp(arm64)["EFI/BOOT/BOOTAA64.EFI"].startswith("arm64-efi search.fs_uuid")
    assert arm64.read("/boot/grub/arm64-efi/normal.mod") == "module of arm64"
    assert not arm64.exists("/boot/grub/i386-pc")
    assert not any(disk(arm64)[:440]), "there is no code for a BIOS"


def test_grub_of_arm64_speaks_through_the_firmware(arm64):
    Qemu(boot_loader="grub").run(arm64)
    menu, defaults = arm64.read("/boot/grub/grub.cfg"), arm64.read(grub.DEFAULTS)
    assert "terminal_output console\n" in menu
    assert "GRUB_TERMINAL=console\n" in defaults
    assert "serial" not in menu + defaults


def test_behind_the_shim_of_arm64_are_the_programs_of_arm64(arm64):
    for source, package in grub.signed(ARM64).values():
        arm64.write(source, package)
    Qemu(boot_loader="grub").run(arm64)
    files = esp(arm64)
    assert files["EFI/BOOT/BOOTAA64.EFI"] == "shim-signed"
    assert files["EFI/BOOT/grubaa64.efi"] == "grub-efi-arm64-signed"
    assert files["EFI/BOOT/mmaa64.efi"] == "shim-helpers-arm64-signed"


def test_the_signed_systemd_boot_of_arm64_starts_behind_the_shim(arm64):
    for path in shim(ARM64.image).values():
        arm64.write(path, path)
    arm64.write("/usr/lib/systemd/boot/efi/systemd-bootaa64.efi.signed", "signed")
    Qemu(boot_loader="systemd-boot").run(arm64)
    files = esp(arm64)
    assert files["EFI/BOOT/BOOTAA64.EFI"] == "/usr/lib/shim/shimaa64.efi.signed"
    assert files["EFI/BOOT/grubaa64.efi"] == "signed"


@pytest.mark.parametrize(
    ("loader", "missing", "package"),
    [
        ("grub", "/usr/lib/grub/arm64-efi/moddep.lst", "grub-efi-arm64-bin"),
        ("systemd-boot", "/usr/lib/systemd/boot/efi/systemd-bootaa64.efi", "systemd-boot-efi"),
    ],
)
def test_a_missing_package_has_its_name_on_arm64(arm64, loader, missing, package):
    arm64.remove(missing)
    with pytest.raises(StageError, match=f"'{package}' is not installed"):
        Qemu(boot_loader=loader).run(arm64)


def test_an_image_without_a_kernel_is_told_the_kernels_of_its_architecture(arm64):
    for name in ("vmlinuz", "initrd.img"):
        arm64.remove(f"/{name}")
        arm64.remove(f"/boot/{name}-6.12")
    with pytest.raises(StageError, match="no kernel") as raised:
        Qemu(boot_loader="systemd-boot").run(arm64)
    assert "'linux-image-cloud-arm64'" in raised.value.hint


@pytest.mark.parametrize("loader", FIRMWARES)
def test_what_starts_an_image_is_what_both_the_loader_and_the_machine_know(loader):
    assert Qemu(boot_loader=loader).firmwares_on(ARM64) == (
        () if loader == "extlinux" else ("uefi",)
    )


def test_what_cannot_boot_on_arm64_has_a_reason_and_a_way_out():
    (place, why, hint) = next(iter(Qemu().obstacles(ARM64)))
    assert place == ("boot-loader",)
    assert why == "extlinux starts from bios, and arm64 has uefi and uefi-secure"
    assert "systemd-boot" in hint
    table = Qemu(boot_loader="grub", partition_table="msdos")
    assert [place for place, _, _ in table.obstacles(ARM64)] == [("partition-table",)]
    for loader in FIRMWARES:
        assert list(Qemu(boot_loader=loader).obstacles(AMD64)) == []
    assert "no bios" in str(Qemu(boot_loader="grub").refusal("bios", ARM64))


def test_no_fact_of_amd64_is_left_in_the_names_of_the_needs():
    for loader in ("grub", "systemd-boot"):
        stage = Qemu(boot_loader=loader)
        found = [*stage.boot_needs(ARM64), *stage.signed_needs(ARM64)]
        texts = " ".join(f"{need.what} {need.hint} {need.files}" for need in found)
        assert not re.search(r"amd64|x64|x86|i386|grub-pc", texts)

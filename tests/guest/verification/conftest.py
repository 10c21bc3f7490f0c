import struct

import pytest

from ..disk.extlinux import BOOT_SECTOR, CORE, CORE_OFFSET
from .boot_images import COMMAND_LINE, EXTLINUX, GRUB, MIB, ROOT_UUID, Image, program


@pytest.fixture
def image(tmp_path):
    return Image(tmp_path)


@pytest.fixture
def extlinux(image):
    image.write_disk(0, b"\x33\xc0".ljust(400, b"\x90") + b"Missing OS\r\n")
    image.write_disk(2 * MIB, BOOT_SECTOR)
    image.write_disk(2 * MIB + CORE_OFFSET, CORE)
    image.write(image.root, "boot/extlinux/ldlinux.sys", CORE + b"configuration")
    image.write(image.root, "boot/extlinux/ldlinux.c32", "module")
    image.write(image.root, "boot/extlinux/extlinux.conf", EXTLINUX)
    return image


@pytest.fixture
def grub_bios(image):
    code = bytearray(b"\xeb\x63\x90".ljust(440, b"\0"))
    code[384:390] = b"GRUB \0"
    # The number of the sector, and the number of the boot drive (0xFF: the one of BIOS).
    struct.pack_into("<QB", code, 0x5C, 2048, 0xFF)
    core = bytearray(b"\x52" * 1024)
    struct.pack_into("<QH", core, 500, 2049, 1)
    image.write_disk(0, code)
    image.write_disk(MIB, core)
    image.write(image.root, "boot/grub/grub.cfg", GRUB)
    return image


@pytest.fixture
def grub_efi(image):
    shim = program({".text": b"UEFI SHIM\n$Version: 15.8 $"})
    image.write(image.esp, "EFI/BOOT/BOOTX64.EFI", shim)
    image.write(image.esp, "EFI/BOOT/grubx64.efi", program({".text": b"GRUB"}))
    menu = f"search.fs_uuid {ROOT_UUID} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/x\n"
    image.write(image.esp, "EFI/debian/grub.cfg", menu)
    image.write(image.root, "boot/grub/grub.cfg", GRUB)
    return image


@pytest.fixture
def systemd_boot(image):
    signed = program({".sdmagic": b"#### LoaderInfo: systemd-boot 257 ####"})
    image.write(image.esp, "EFI/Boot/bootx64.efi", signed)
    (image.esp / "EFI/BOOT").symlink_to("Boot")
    for name in ("linux", "initrd"):
        image.write(image.esp, f"debian/1/{name}", name)
    entry = (
        f"title Debian\nlinux /debian/1/linux\ninitrd /debian/1/initrd\noptions {COMMAND_LINE}\n"
    )
    image.write(image.esp, "loader/entries/debian-1.conf", entry)
    parts = {".linux": b"kernel", ".initrd": b"cpio", ".cmdline": f"{COMMAND_LINE}\0".encode()}
    image.write(image.esp, "EFI/Linux/debian-1.efi", program(parts))
    return image

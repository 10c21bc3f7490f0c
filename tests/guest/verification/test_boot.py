"""The verification of the boot from firmware to kernel, intact and broken at each step."""

import struct

import pytest
from particle_agent.verification import boot, pe

from ..disk.extlinux import CORE, CORE_OFFSET, core
from .boot_images import GRUB, MIB, OTHER, ROOT_UUID, change, program


@pytest.mark.parametrize("name", ["extlinux", "grub_bios", "grub_efi", "systemd_boot"])
def test_a_whole_way(name, request):
    assert request.getfixturevalue(name).judged() == []


def test_a_partition_to_boot_without_a_file_system(extlinux):
    """Its first sector has the code, but the kernel knows no file system there."""
    extlinux.root_kind = ""
    assert extlinux.judged() == ["boot-loader-file-missing"]


def test_a_system_in_a_subvolume_boots_with_the_paths_of_grub_and_the_kernel(grub_bios):
    """GRUB's paths begin at the top of the file system, the kernel's at its subvolume."""
    image = grub_bios
    aside = image.root.rename(image.root.parent / "aside")
    image.root.mkdir()
    aside.rename(image.root / "@rootfs")
    image.root_kind, image.subvolume = "btrfs", "@rootfs"
    menu = image.root / "@rootfs/boot/grub/grub.cfg"
    text = (
        menu.read_text()
        .replace("\t/boot/", "\t/@rootfs/boot/")
        .replace(" /boot/i", " /@rootfs/boot/i")
    )
    text = text.replace("($root)/boot/", "($root)/@rootfs/boot/")
    menu.write_text(text)
    assert set(image.judged()) == {"init-missing"}
    menu.write_text(text.replace(" ro ", " ro rootflags=subvol=@rootfs "))
    assert image.judged() == []
    (image.root / "@rootfs/boot/vmlinuz-1").unlink()
    assert "boot-menu-file-missing" in image.judged()


def test_grubs_code_for_a_hybrid_image_has_the_sector_in_another_place(grub_bios):
    with grub_bios.path.open("r+b") as disk:
        disk.seek(0x5C)
        number = disk.read(8)
        disk.seek(0x5C)
        disk.write(bytes(8))
    assert grub_bios.judged() == ["boot-code-broken"]
    grub_bios.write_disk(0x1B0, number)
    assert grub_bios.judged() == []
    grub_bios.write_disk(MIB, bytes(512))
    assert grub_bios.judged() == ["boot-code-broken"]


def test_grub_whose_core_image_is_nowhere(grub_bios):
    """A number of a sector that is the MBR itself, or beyond the disk, leads nowhere."""
    for sector in (0, 8 * MIB // 512, 1 << 40):
        grub_bios.write_disk(0x5C, struct.pack("<Q", sector))
        assert grub_bios.judged() == ["boot-code-broken"]


def test_grub_whose_core_image_follows_the_mbr(grub_bios):
    core = bytearray(b"\x52" * 1024)
    struct.pack_into("<QH", core, 500, 2, 1)
    grub_bios.write_disk(0x5C, struct.pack("<Q", 1))
    grub_bios.write_disk(512, core)
    assert grub_bios.judged() == []


def test_grub_of_uefi_without_its_own_menu(grub_efi):
    """The first menu only leads to the menu next to the kernel."""
    (grub_efi.root / "boot/grub/grub.cfg").unlink()
    assert grub_efi.judged() == ["boot-menu-missing"]


def test_no_way_at_all(image):
    assert image.judged() == ["boot-loader-missing"]
    image.write_disk(0, b"some other loader's code" * 10)
    assert image.judged() == [], "of what is unknown nothing is concluded"


def test_extlinux_broken_at_each_step(extlinux):
    conf = extlinux.root / "boot/extlinux/extlinux.conf"
    change(conf, "INITRD /initrd.img", "INITRD /gone.img")
    assert extlinux.judged() == ["boot-menu-file-missing"]
    change(conf, "INITRD /gone.img", "INITRD /initrd.img")
    (extlinux.root / "boot/vmlinuz-1").write_text("")
    assert extlinux.judged() == ["boot-menu-file-missing"] * 2, "both entries boot it"
    (extlinux.root / "boot/vmlinuz-1").write_text("kernel")
    change(conf, ROOT_UUID, OTHER)
    assert extlinux.judged() == ["root-missing"] * 2
    conf.write_text("DEFAULT linux\n")
    assert extlinux.judged() == ["boot-menu-missing"]
    conf.unlink()
    assert extlinux.judged() == ["boot-menu-missing"]
    (extlinux.root / "boot/extlinux/ldlinux.c32").unlink()
    assert extlinux.judged() == ["boot-loader-file-missing", "boot-menu-missing"]
    (extlinux.root / "boot/extlinux/ldlinux.sys").unlink()
    assert extlinux.judged() == ["boot-loader-file-missing"]
    extlinux.write_disk(2 * MIB, bytes(512))
    assert extlinux.judged() == ["boot-code-broken", "boot-loader-file-missing"]
    extlinux.end = 1 << 73
    assert extlinux.judged() == ["boot-partition-not-active"], "its end is beyond the disk"
    extlinux.active = False
    assert extlinux.judged() == ["boot-partition-not-active"]


def test_syslinux_stops_at_two_partitions_that_are_marked(extlinux):
    extlinux.esp_active = True
    assert extlinux.judged() == ["boot-partition-ambiguous"]
    extlinux.label, extlinux.root_number = "dos", 5
    extlinux.esp_active = False
    assert extlinux.judged() == [], "a logical one, when no other is marked"
    extlinux.esp_active = True
    assert "boot-partition-ambiguous" not in extlinux.judged(), "it boots the primary one"
    extlinux.root_number = 2
    assert extlinux.judged() == ["boot-partition-ambiguous"]


def test_grub_of_bios_broken_at_each_step(grub_bios):
    menu = grub_bios.root / "boot/grub/grub.cfg"
    change(menu, "/boot/vmlinuz-1", "/boot/vmlinuz-2")
    assert grub_bios.judged() == ["boot-menu-file-missing"] * 2
    menu.write_text(GRUB.replace(ROOT_UUID, OTHER, 2))
    assert grub_bios.judged() == ["boot-menu-device-missing"] * 2
    menu.write_text(GRUB.replace(f"root=UUID={ROOT_UUID}", f"root=UUID={OTHER}"))
    assert grub_bios.judged() == ["root-missing"]
    menu.write_text("set timeout=1\n# linux /boot/vmlinuz-1\n")
    assert grub_bios.judged() == ["boot-menu-missing"]
    menu.write_text(GRUB)
    grub_bios.write_disk(MIB + 512, bytes(512))
    assert grub_bios.judged() == ["boot-code-broken"]
    grub_bios.write_disk(MIB, bytes(512))
    assert grub_bios.judged() == ["boot-code-broken"]


def test_grub_of_uefi_broken_at_each_step(grub_efi):
    first = grub_efi.esp / "EFI/debian/grub.cfg"
    change(first, ROOT_UUID, OTHER)
    assert grub_efi.judged() == ["boot-menu-device-missing"]
    change(first, OTHER, ROOT_UUID)
    (grub_efi.esp / "EFI/BOOT/grubx64.efi").rename(grub_efi.esp / "EFI/BOOT/x")
    assert grub_efi.judged() == ["boot-loader-file-missing"]
    (grub_efi.esp / "EFI/BOOT/BOOTX64.EFI").write_bytes(b"")
    assert grub_efi.judged() == ["boot-loader-file-missing"]


def test_systemd_boot_broken_at_each_step(systemd_boot):
    entry = systemd_boot.esp / "loader/entries/debian-1.conf"
    unified = systemd_boot.esp / "EFI/Linux/debian-1.efi"
    change(entry, "/debian/1/initrd", "/debian/2/initrd")
    assert systemd_boot.judged() == ["boot-menu-file-missing"]
    change(entry, "/debian/2/initrd", "/debian/1/initrd")
    change(entry, ROOT_UUID, OTHER)
    assert systemd_boot.judged() == ["root-missing"]
    entry.unlink()
    whole = unified.read_bytes()
    unified.write_bytes(whole.replace(ROOT_UUID.encode(), OTHER.encode()))
    assert systemd_boot.judged() == ["root-missing"]
    unified.write_bytes(whole[:-20])
    assert systemd_boot.judged() == ["unified-kernel-image-broken"]
    unified.write_bytes(program({".initrd": b"cpio"}))
    assert systemd_boot.judged() == ["unified-kernel-image-broken"]
    unified.write_bytes(b"")
    assert systemd_boot.judged() == ["unified-kernel-image-broken"]
    unified.unlink()
    assert systemd_boot.judged() == ["boot-menu-missing"]


def test_a_program_that_is_cut_off_starts_nothing(systemd_boot):
    loader = systemd_boot.esp / "EFI/Boot/bootx64.efi"
    whole = loader.read_bytes()
    for data in (b"MZ" + bytes(1000), whole[:-1], whole[:100]):
        loader.write_bytes(data)
        assert systemd_boot.judged() == ["boot-loader-file-missing"]


def test_a_disk_for_both_firmwares_has_a_loader_for_both(grub_bios):
    grub_bios.write(grub_bios.esp, "EFI/debian/grub.cfg", "# no program")
    grub_bios.first_type = boot.ESP_TYPES[0]
    assert grub_bios.judged() == ["boot-loader-file-missing"]


def test_a_loader_that_is_not_where_the_boot_sector_looks_for_it(extlinux):
    path = extlinux.root / "boot/extlinux/ldlinux.sys"
    for data in (bytes(1024), CORE[:500], CORE[:-4] + b"oops"):
        path.write_bytes(data)
        assert extlinux.judged() == ["boot-code-broken"]
    extlinux.write_disk(2 * MIB + CORE_OFFSET, bytes(512))
    for data in (CORE, core(places=len(CORE) - 20)):
        path.write_bytes(data)
        assert extlinux.judged() == ["boot-code-broken"]


def test_the_place_of_another_version_of_the_loader_is_unknown(extlinux):
    """Its table of places may mean something else, so nothing is concluded."""
    old = bytearray(CORE.replace(b"6.04", b"4.07"))
    words = struct.unpack("<256I", old)
    (spare,) = struct.unpack_from("<I", old, 40)
    struct.pack_into("<I", old, 40, (spare + 0x3EB202FE - sum(words)) & 0xFFFFFFFF)
    extlinux.write(extlinux.root, "boot/extlinux/ldlinux.sys", bytes(old))
    assert extlinux.judged() == []


def test_a_section_is_known_when_its_whole_header_was_read():
    end = 0x80 + 24 + 16 + 2 * 40
    data = program({".linux": b"kernel", ".cmdline": b"x"})
    assert list(pe.sections(data[:end])) == [".linux", ".cmdline"]
    assert list(pe.sections(data[: end - 1])) == [".linux"]


@pytest.mark.parametrize("cut", range(0, 700, 7))
def test_programs_that_are_cut_are_no_traps(cut):
    data = program({".linux": b"kernel", ".cmdline": b"x"})
    found = [pe.sections(data[:cut])]
    for value in (0, 0xFFFFFFFF, cut):
        odd = bytearray(data)
        struct.pack_into("<I", odd, cut % 500, value)
        found.append(pe.sections(bytes(odd)))
    assert all(len(content) <= len(data) for one in found for content in one.values())


ARM64, RISCV64 = 0xAA64, 0x5064


@pytest.mark.parametrize(
    ("path", "machine", "words"),
    [
        ("EFI/BOOT/BOOTX64.EFI", ARM64, "is a program for arm64, and its name is that of amd64"),
        ("EFI/BOOT/grubx64.efi", ARM64, "is a program for arm64, and its name is that of amd64"),
        ("EFI/BOOT/BOOTX64.EFI", RISCV64, "is a program for the unknown machine 0x5064"),
    ],
)
def test_a_program_for_other_machines_than_its_name_says(grub_efi, path, machine, words):
    content = (grub_efi.esp / path).read_bytes()
    (grub_efi.esp / path).write_bytes(
        content.replace(b"\x64\x86", machine.to_bytes(2, "little"), 1)
    )
    assert grub_efi.judged() == ["boot-loader-file-missing"]
    assert words in grub_efi.reported[0].message


@pytest.fixture
def arm64(systemd_boot):
    """The disk of systemd-boot for arm64."""
    boot_directory = systemd_boot.esp / "EFI/Boot"
    (boot_directory / "bootx64.efi").unlink()
    signed = program({".sdmagic": b"#### LoaderInfo: systemd-boot 257 ####"}, ARM64)
    (boot_directory / "BOOTAA64.EFI").write_bytes(signed)
    return systemd_boot


def test_a_disk_for_arm64_is_whole(arm64):
    assert arm64.judged() == []


def test_a_disk_for_arm64_broken_at_each_step(arm64):
    (arm64.esp / "loader/entries/debian-1.conf").unlink()
    (arm64.esp / "EFI/Linux/debian-1.efi").unlink()
    assert arm64.judged() == ["boot-menu-missing"]
    path = arm64.esp / "EFI/Boot/BOOTAA64.EFI"
    path.write_bytes(path.read_bytes().replace(ARM64.to_bytes(2, "little"), b"\x64\x86", 1))
    assert arm64.judged() == ["boot-loader-file-missing"]
    assert "is a program for amd64, and its name is that of arm64" in arm64.reported[0].message
    path.write_bytes(path.read_bytes()[:100])
    assert "cut off" in (arm64.judged() and arm64.reported[0].message)


def test_a_program_of_another_architecture_is_not_the_one_that_the_disk_needs(systemd_boot):
    """The disk has amd64's program under amd64's name, and a root partition for arm64."""
    systemd_boot.root_type = "b921b045-1df0-41c3-af44-4c6f280d3fae"
    systemd_boot.first_type = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
    assert systemd_boot.judged() == ["boot-loader-missing"]
    assert "no EFI/BOOT/BOOTAA64.EFI" in systemd_boot.reported[0].message
    systemd_boot.root_type = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
    assert systemd_boot.judged() == []


def test_the_type_of_the_root_partition_tells_which_program_is_missing(arm64):
    (arm64.esp / "EFI/Boot/BOOTAA64.EFI").unlink()
    arm64.root_type = "b921b045-1df0-41c3-af44-4c6f280d3fae"
    arm64.first_type = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
    assert arm64.judged() == ["boot-loader-missing"]
    assert "no EFI/BOOT/BOOTAA64.EFI" in arm64.reported[0].message
    arm64.root_type = "x"
    assert "no EFI/BOOT/BOOTX64.EFI" in (arm64.judged() and arm64.reported[0].message)

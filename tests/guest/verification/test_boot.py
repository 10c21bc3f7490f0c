"""The verification of the boot from firmware to kernel, intact and broken at each step."""

import struct

import pytest
from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree
from particle_agent.verification import boot, menus, pe
from particle_agent.verification.table import PartitionEntry, PartitionTable
from particle_agent.verification.volumes import FoundVolume

from ..disk.extlinux import BOOT_SECTOR, CORE, CORE_OFFSET, core

MIB = 1 << 20
ROOT_UUID, ESP_UUID = "a6cdd9c7-f5cb-4d61-aed1-5b849a34a970", "7E9F-EE80"
OTHER = "11111111-2222-3333-4444-555555555555"
COMMAND_LINE = f"root=UUID={ROOT_UUID} ro console=ttyS0"
EXTLINUX = f"""\
# made by hand
SERIAL 0 115200
DEFAULT linux
LABEL linux
  LINUX /vmlinuz
  INITRD /initrd.img
  APPEND {COMMAND_LINE}
label old
  kernel ../vmlinuz-1
  append initrd=../initrd.img-1 {COMMAND_LINE}
LABEL menu
  KERNEL vesamenu.c32
"""
GRUB = f"""\
set default="${{saved_entry}}"
search --no-floppy --fs-uuid --set=root {ROOT_UUID}
menuentry 'Linux' {{
	search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 {ROOT_UUID}
	linux	/boot/vmlinuz-1 {COMMAND_LINE}
	initrd	/boot/initrd.img-1 /boot/initrd.img-1
	linux ($root)/boot/vmlinuz-1 root=$x
	linux (hd0,gpt1)/elsewhere root=${{x}}
	linux $kernel root=UUID=${{uuid}}
}}
"""


class Image:
    """A disk with a small system on partition 2 and an EFI system partition."""

    def __init__(self, directory):
        self.path = directory / "disk"
        with self.path.open("wb") as file:
            file.truncate(8 * MIB)
        self.esp, self.root = directory / "esp", directory / "root"
        for place in (self.esp, self.root):
            place.mkdir()
        self.active, self.esp_active, self.end = True, False, 7 * MIB
        self.label, self.root_number, self.first_type = "gpt", 2, "x"
        self.root_kind, self.subvolume = "ext4", ""
        self.write(self.root, "usr/bin/init", "program").chmod(0o755)
        self.write(self.root, "etc/hostname", "x")
        (self.root / "sbin").symlink_to("usr/bin")
        for name in ("vmlinuz", "initrd.img"):
            self.write(self.root, f"boot/{name}-1", name)
            (self.root / name).symlink_to(f"boot/{name}-1")

    def write(self, place, path, content):
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def write_disk(self, offset, data):
        with self.path.open("r+b") as disk:
            disk.seek(offset)
            disk.write(data)

    def judged(self):
        entries = (
            PartitionEntry(number=1, start=MIB, end=2 * MIB, type=self.first_type, uuid="1",
                  active=self.esp_active),
            PartitionEntry(number=self.root_number, start=2 * MIB, end=self.end, type="x", uuid="2",
                  active=self.active),
        )  # fmt: skip
        table = PartitionTable(label=self.label, entries=entries, first=MIB, last=7 * MIB)
        volumes = [
            FoundVolume(number=1, kind="vfat", uuid=ESP_UUID, label="", entry=entries[0],
                   tree=Tree(self.esp)),
            FoundVolume(number=2, kind=self.root_kind, uuid=ROOT_UUID, label="", entry=entries[1],
                   tree=Tree(self.root) if self.root_kind else None,
                   systems=(Tree(self.root / self.subvolume),) if self.root_kind else ()),
        ]  # fmt: skip
        reported = []
        with self.path.open("rb") as disk:
            boot.check(disk, 8 * MIB, table, volumes, Findings(reported.append))
        return [finding.code for finding in reported]


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


def program(sections):
    """A PE program with these sections, by name."""
    head = bytearray(0x200)
    head[:2], head[0x80:0x84] = b"MZ", b"PE\0\0"
    # The code of a program for DOS follows the offset of the header.
    struct.pack_into("<I2s", head, 0x3C, 0x80, b"\x0e\x1f")
    struct.pack_into("<HH12xHH", head, 0x84, 0x8664, len(sections), 16, 0)
    data = b""
    for index, (name, content) in enumerate(sections.items()):
        where = 0x80 + 24 + 16 + 40 * index
        head[where : where + 8] = name.encode().ljust(8, b"\0")
        struct.pack_into("<IIII", head, where + 8, len(content), 0, len(content), 512 + len(data))
        data += content
    return bytes(head) + data


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


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


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


def write_menus(image, **menus):
    for name, text in menus.items():
        image.write(image.root, f"boot/extlinux/{name.replace('_', '.')}", text)


def test_extlinux_includes_files(extlinux):
    write_menus(extlinux, extlinux_conf="include themes/x.cfg\n")
    extlinux.write(extlinux.root, "boot/extlinux/themes/x.cfg", "MENU INCLUDE linux.cfg Linux\n")
    write_menus(extlinux, linux_cfg=EXTLINUX)
    assert extlinux.judged() == [], "paths count from the directory of the menu"
    write_menus(extlinux, linux_cfg=EXTLINUX.replace("/initrd.img\n", "/gone.img\n"))
    assert extlinux.judged() == ["boot-menu-file-missing"]
    (extlinux.root / "boot/extlinux/linux.cfg").unlink()
    (extlinux.root / "boot/extlinux/linux.cfg").symlink_to("/../../../../../../etc/passwd")
    assert extlinux.judged() == ["boot-menu-missing"]


def test_extlinux_files_that_include_each_other_have_an_end(extlinux):
    write_menus(
        extlinux,
        extlinux_conf=f"INCLUDE a.cfg\n{EXTLINUX}",
        a_cfg="INCLUDE b.cfg\nINCLUDE ../extlinux/a.cfg\nINCLUDE b.cfg\n" * 40,
        b_cfg="INCLUDE a.cfg\nINCLUDE extlinux.conf\n" * 40,
    )
    assert extlinux.judged() == []
    write_menus(
        extlinux,
        extlinux_conf="DEFAULT a\nLABEL a\nCONFIG b.cfg\n",
        b_cfg="DEFAULT b\nLABEL b\nCONFIG extlinux.conf\n",
    )
    assert extlinux.judged() == ["boot-menu-missing"]


def test_extlinux_goes_on_with_another_configuration(extlinux):
    write_menus(extlinux, extlinux_conf="DEFAULT a\nLABEL a\n  CONFIG b.cfg /boot/\n")
    write_menus(extlinux, b_cfg=f"DEFAULT l\nLABEL l\nLINUX vmlinuz-1\nAPPEND {COMMAND_LINE}\n")
    assert extlinux.judged() == []
    write_menus(extlinux, b_cfg=f"DEFAULT x\nLABEL l\nLINUX vmlinuz-2\nAPPEND {COMMAND_LINE}\n")
    assert extlinux.judged() == ["boot-menu-default-missing", "boot-menu-file-missing"]
    write_menus(extlinux, extlinux_conf="UI vesamenu.c32 b.cfg ~\n", b_cfg=EXTLINUX)
    assert extlinux.judged() == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("DEFAULT nolabel\n", "boot-menu-default-missing"),
        ("", "boot-menu-default-missing"),
        ("DEFAULT linux quiet\n", None),
        ("default\tOld\n", "boot-menu-default-missing"),
        ("DEFAULT nolabel\nDEFAULT old\n", None),
        ("DEFAULT ../vmlinuz-1\n", None),
        ("DEFAULT vesamenu.c32\n", None),
        ("UI menu.c32\n", None),
        ("DEFAULT nolabel\nTIMEOUT 50\nONTIMEOUT linux\n", None),
        ("TEXT HELP\nDEFAULT linux\nENDTEXT\n", "boot-menu-default-missing"),
    ],
)
def test_extlinux_needs_a_default(extlinux, text, code):
    write_menus(extlinux, extlinux_conf=EXTLINUX.replace("DEFAULT linux\n", text))
    assert extlinux.judged() == ([code] if code else [])


def test_extlinux_command_lines(extlinux):
    """The APPEND before the labels applies to labels without an APPEND."""
    text = f"DEFAULT linux\nAPPEND {COMMAND_LINE}\nLABEL linux\n\tLINUX\t/vmlinuz quiet\n"
    write_menus(extlinux, extlinux_conf=text)
    assert extlinux.judged() == []
    write_menus(extlinux, extlinux_conf=text.replace(ROOT_UUID, OTHER))
    assert extlinux.judged() == ["root-missing"]
    write_menus(extlinux, extlinux_conf=text.replace(ROOT_UUID, OTHER) + "APPEND -\n")
    assert extlinux.judged() == []
    write_menus(extlinux, extlinux_conf=text.replace("LINUX\t/vmlinuz quiet", f"root=UUID={OTHER}"))
    assert extlinux.judged() == ["boot-menu-missing"], "there is no file named linux"
    write_menus(extlinux, extlinux_conf=f"DEFAULT /vmlinuz root=UUID={OTHER}\n")
    assert extlinux.judged() == ["root-missing"]


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


def test_grub_reads_the_menu_that_its_menu_names(grub_bios):
    """As on a disk of OSTree, which switches the second menu."""
    menu = "load_env\nif [ x ]; then\n\tset default=1\nfi\nsource /boot/loader/grub.cfg\n"
    grub_bios.write(grub_bios.root, "boot/grub/grub.cfg", menu)
    assert grub_bios.judged() == ["boot-menu-missing"]
    (grub_bios.root / "boot/loader").symlink_to("loader.1")
    second = grub_bios.write(grub_bios.root, "boot/loader.1/grub.cfg", GRUB)
    assert grub_bios.judged() == []
    change(second, "/boot/vmlinuz-1", "/boot/vmlinuz-2")
    assert grub_bios.judged() == ["boot-menu-file-missing"] * 2
    second.unlink()
    second.symlink_to("/../../../../../../etc/passwd")
    assert grub_bios.judged() == ["boot-menu-missing"]
    second.unlink()
    second.symlink_to("grub.cfg")
    assert grub_bios.judged() == ["boot-menu-missing"]


def test_menus_of_grub_that_read_each_other_have_an_end(grub_bios, monkeypatch):
    read = []
    lines = menus.lines
    monkeypatch.setattr(menus, "lines", lambda tree, path: read.append(path) or lines(tree, path))
    names = [f"/boot/grub/{name}.cfg" for name in ("grub", "a", "b", "c")]
    for name in names:
        text = "".join(f"source {other}\nconfigfile ($root){other}\n. {other}\n" for other in names)
        grub_bios.write(grub_bios.root, name.lstrip("/"), text * 50)
    assert grub_bios.judged() == ["boot-menu-missing"]
    assert sorted(read) == sorted(names), "each of them once"
    read.clear()
    grub_bios.write(
        grub_bios.root,
        "boot/grub/grub.cfg",
        "".join(f"source {'/' * n}boot/grub/grub.cfg\n" for n in range(1, 300)),
    )
    assert grub_bios.judged() == ["boot-menu-missing"]
    assert len(read) <= menus.MENUS_LIMIT


def test_grub_starts_the_init_of_the_deployment(grub_bios):
    menu = grub_bios.root / "boot/grub/grub.cfg"
    menu.write_text(GRUB.replace(COMMAND_LINE, f"{COMMAND_LINE} ostree=/ostree/boot.1/debian/a/0"))
    assert grub_bios.judged() == ["init-missing"]
    (grub_bios.root / "ostree/boot.1/debian/a").mkdir(parents=True)
    (grub_bios.root / "ostree/boot.1/debian/a/0").symlink_to("../../../deploy/debian/deploy/a.0")
    deployed = grub_bios.root / "ostree/deploy/debian/deploy/a.0"
    init = grub_bios.write(deployed, "usr/sbin/init", "program")
    (deployed / "sbin").symlink_to("usr/sbin")
    init.chmod(0o755)
    assert grub_bios.judged() == []
    init.chmod(0o644)
    assert grub_bios.judged() == ["init-missing"]
    init.unlink()
    init.symlink_to("/../../../../../../../../usr/bin/env")
    assert grub_bios.judged() == ["init-missing"], "the VM's own program is none of it"


def test_a_deployment_may_be_in_a_subvolume(grub_bios):
    menu = grub_bios.root / "boot/grub/grub.cfg"
    words = f"{COMMAND_LINE} rootflags=subvol=@ ostree=/deployed"
    menu.write_text(GRUB.replace(COMMAND_LINE, words))
    init = grub_bios.write(grub_bios.root, "@/deployed/sbin/init", "program")
    assert grub_bios.judged() == ["init-missing"]
    init.chmod(0o755)
    assert grub_bios.judged() == []


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

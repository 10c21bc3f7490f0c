import re
import struct
import subprocess

import pytest
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.arm64 import ARM64
from particle_agent.disk import boot, grub
from particle_agent.disk.systemd_boot import SystemdBoot, shim
from particle_agent.errors import StageError
from particle_agent.stages.output import qemu
from particle_agent.stages.output.qemu import Qemu

from .built_disk import MIB, SECTOR, disk, esp, table


def test_grub_is_for_bios_and_uefi_on_one_gpt(debian):
    Qemu(boot_loader="grub").run(debian)
    types = [field for line in table(debian) for field in line.split(", ") if "type=" in field]
    assert types == [
        "type=21686148-6449-6e6f-744e-656564454649",
        "type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        "type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    ]
    assert debian.only("mkfs.vfat").argv[-1].endswith("disk2")
    assert debian.only("mke2fs").argv[-1].endswith("disk3")
    assert list(esp(debian)) == ["EFI/BOOT/BOOTX64.EFI"]


def test_each_partition_of_a_gpt_has_its_name_and_a_uuid_of_its_own(debian):
    Qemu(boot_loader="grub").run(debian)
    names = re.findall(r'name="([^"]*)"', debian.only("sfdisk").stdin)
    uuids = re.findall(r" uuid=([0-9a-f-]{36})", debian.only("sfdisk").stdin)
    assert len(names) == len(set(uuids)) == 3
    assert names[-1] == "root"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "place"), [("gpt", MIB), ("msdos", SECTOR)])
def test_bios_finds_grubs_core_image_where_it_is(debian, kind, place):
    """The numbers that boot.S and diskboot.S read lead to all sectors of the core image."""
    Qemu(boot_loader="grub", partition_table=kind).run(debian)
    content = disk(debian)
    (sector,) = struct.unpack_from("<Q", content, 0x5C)
    assert sector == place // SECTOR
    core = content[sector * SECTOR :]
    assert core.startswith(b"i386-pc search.fs_uuid")
    start, count, _ = struct.unpack_from("<QHH", core, SECTOR - 12)
    assert (start, count) == (sector + 1, 2)
    assert content[0x66:0x68] == b"\x90\x90"
    assert content[440:SECTOR] == bytes(SECTOR - 440), "the partition table is not written over"


@pytest.mark.parametrize(
    ("kind", "place", "room"), [("gpt", MIB, MIB), ("msdos", SECTOR, MIB - SECTOR)]
)
def test_grubs_core_image_fills_its_room_and_no_more(debian, tmp_path, kind, place, room):
    disk, core = tmp_path / "disk", "/boot/grub/i386-pc/core.img"
    disk.write_bytes(bytes(place))
    debian.write(core, "x" * room)
    debian.write("/boot/grub/i386-pc/boot.img", "\x01" * 512)
    grub.Grub(kind).write_boot_code(debian, disk, [])
    content = disk.read_bytes()
    assert len(content) == place + room
    assert struct.unpack_from("<Q", content, 0x5C) == (place // SECTOR,)
    assert content[0x64:0x6A] == b"\x01\x01\x90\x90\x01\x01"
    start, count, rest = struct.unpack_from("<QHH", content, place + SECTOR - 12)
    assert (start, count, rest) == (place // SECTOR + 1, room // SECTOR - 1, 0x7878)
    debian.write(core, "x" * (room + 1))
    with pytest.raises(StageError, match=f"the limit is {room}"):
        grub.Grub(kind).write_boot_code(debian, disk, [])


def test_an_mbr_has_its_own_identifier_and_types(debian):
    Qemu(boot_loader="grub", partition_table="msdos").run(debian)
    label, identifier, esp_line, root_line = table(debian)
    assert label == "label: dos"
    assert re.fullmatch("label-id: 0x[0-9a-f]{8}", identifier)
    assert "type=ef" in esp_line
    assert re.fullmatch("start=[0-9]+MiB, type=83, bootable", root_line)
    assert "uuid=" not in esp_line + root_line


@pytest.mark.parametrize("file_system", ["ext4", "xfs", "btrfs"])
def test_grub_finds_its_menu_and_the_menu_finds_the_root(debian, file_system):
    Qemu(boot_loader="grub", file_system=file_system).run(debian)
    uuid = debian.read("/etc/fstab").split()[0].removeprefix("UUID=")
    menu = debian.read("/boot/grub/grub.cfg")
    assert f"--set=root {uuid}\n" in menu
    assert f"linux /vmlinuz root=UUID={uuid} ro console=tty0" in menu
    image = esp(debian)["EFI/BOOT/BOOTX64.EFI"]
    assert f"search.fs_uuid {uuid} root\nset prefix=($root)/boot/grub\n" in image
    assert {"ext4": " ext2 ", "xfs": " xfs ", "btrfs": " btrfs "}[file_system] in image
    assert debian.read("/boot/grub/i386-pc/normal.mod") == "module"
    assert not debian.exists("/boot/grub/early.cfg")


def test_update_grub_gets_the_same_command_line(debian):
    debian.write("/etc/kernel/cmdline", "root=UUID=another quiet mitigations=auto,nosmt\n")
    Qemu(boot_loader="grub").run(debian)
    shell = f'. {debian.path(grub.DEFAULTS)}; echo "$GRUB_CMDLINE_LINUX"'
    printed = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert printed == "console=tty0 console=ttyS0,115200 quiet mitigations=auto,nosmt\n"
    assert f"{printed}\tinitrd" in debian.read("/boot/grub/grub.cfg")
    assert "another" not in debian.read("/boot/grub/grub.cfg")


@pytest.mark.parametrize("word", ["a=$(id)", 'b="c', "d;e", "f'g", "h\\", "{x}"])
def test_a_word_that_would_be_script_is_refused(debian, word):
    debian.write("/etc/kernel/cmdline", f"quiet {word}\n")
    with pytest.raises(StageError, match=r"/etc/kernel/cmdline cannot be written") as raised:
        Qemu(boot_loader="grub").run(debian)
    assert "Leave out quotes" in raised.value.hint


def test_with_signed_packages_grub_starts_behind_the_shim(debian):
    for source, package in grub.signed(AMD64).values():
        debian.write(source, package)
    Qemu(boot_loader="grub").run(debian)
    files = esp(debian)
    assert files["EFI/BOOT/BOOTX64.EFI"] == "shim-signed"
    assert files["EFI/BOOT/grubx64.efi"] == "grub-efi-amd64-signed"
    assert "configfile $prefix/grub.cfg" in files["EFI/debian/grub.cfg"]


@pytest.mark.parametrize(
    ("loader", "missing", "package"),
    [
        ("grub", "/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
        ("grub", "/usr/lib/grub/x86_64-efi/moddep.lst", "grub-efi-amd64-bin"),
        ("grub", "/usr/sbin/update-grub", "grub2-common"),
        ("systemd-boot", "/usr/bin/bootctl", "systemd-boot"),
    ],
)
def test_a_package_that_is_missing_is_named_before_anything_happens(
    debian, loader, missing, package
):
    debian.remove(missing)
    debian.write("/etc/machine-id", "still here\n")
    with pytest.raises(StageError, match=f"'{package}' is not installed") as raised:
        Qemu(boot_loader=loader).run(debian)
    assert package in raised.value.hint
    assert debian.commands == []
    assert debian.read("/etc/machine-id") == "still here\n"


def test_the_signed_program_of_systemd_boot_suffices(debian):
    program = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    debian.remove(program)
    Qemu(boot_loader="systemd-boot").run(debian)
    assert esp(debian)["EFI/BOOT/BOOTX64.EFI"] == "signed systemd-boot"
    debian.remove(f"{program}.signed")
    with pytest.raises(StageError, match="'systemd-boot-efi' is not installed"):
        Qemu(boot_loader="systemd-boot").run(debian)


def test_a_unified_kernel_image_needs_its_stub(debian):
    debian.write("/usr/lib/kernel/install.d/60-ukify.install", "")
    debian.remove("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
    with pytest.raises(StageError, match="'systemd-boot-efi' is not installed"):
        Qemu(boot_loader="systemd-boot", unified_kernel_image=True).run(debian)
    assert debian.commands == []


@pytest.mark.parametrize("file_system", ["xfs", "btrfs"])
def test_extlinux_gets_a_boot_partition_that_it_can_read(debian, file_system):
    Qemu(file_system=file_system).run(debian)
    assert "LegacyBIOSBootable" in table(debian)[2]
    boot_tree = debian.directory / "particle-os-boot"
    menu = (boot_tree / "extlinux/extlinux.conf").read_text()
    boot_uuid, root_uuid = (
        debian.only(program).argv[debian.only(program).argv.index(option) + 1]
        for program, option in (
            ("mke2fs", "-U"),
            (f"mkfs.{file_system}", "-m" if file_system == "xfs" else "-U"),
        )
    )
    root_uuid = root_uuid.removeprefix("uuid=")
    assert f"root=UUID={root_uuid} " in menu
    assert debian.read("/etc/fstab").splitlines()[1].startswith(f"UUID={boot_uuid} /boot ext4 ")
    assert (boot_tree / "vmlinuz").readlink().name == "vmlinuz-6.12"
    assert "image_dest = /boot" in debian.read("/etc/kernel-img.conf")
    assert debian.list("/boot") == []


def test_no_thread_of_the_kernel_decides_where_extlinux_puts_its_files(debian, monkeypatch):
    """test_with_a_source_date_two_cold_builds_are_the_same_bytes failed once in dozens of runs."""
    mounted, mounts = debian.mounted, []

    def remember(what, *options):
        mounts.append(options)
        return mounted(what, *options)

    monkeypatch.setattr(debian, "mounted", remember)
    Qemu().run(debian)
    (options,) = [given[1].split(",") for given in mounts if given[0] == "-o"]
    assert {"noinit_itable", "no_prefetch_block_bitmaps"} <= set(options)


def test_systemd_boot_has_its_programs_and_the_kernel_goes_the_way_of_updates(debian):
    Qemu(boot_loader="systemd-boot").run(debian)
    files = esp(debian)
    assert files["EFI/BOOT/BOOTX64.EFI"] == "signed systemd-boot"
    assert files["EFI/systemd/systemd-bootx64.efi"] == "signed systemd-boot"
    assert debian.read("/etc/kernel/install.conf") == "layout=bls\n"
    assert debian.read("/etc/kernel/cmdline").startswith("root=UUID=")
    command = debian.only("kernel-install")
    assert command.inside
    assert command.argv[1:] == ("add", "6.12", "/boot/vmlinuz-6.12", "/boot/initrd.img-6.12")
    relaxed = {"SYSTEMD_RELAX_ESP_CHECKS": "1"}
    assert command.env == {"BOOT_ROOT": "/boot/efi", "BOOT_MNT": "/boot/efi", **relaxed}
    assert files["loader/loader.conf"] == "timeout 1\n"
    assert files["loader/entries.srel"] == "type1\n"


def test_systemd_boot_starts_behind_the_shim_when_that_is_there(debian):
    before = shim(AMD64.image)
    for path in before.values():
        debian.write(path, path)
    Qemu(boot_loader="systemd-boot").run(debian)
    files = esp(debian)
    assert files["EFI/BOOT/BOOTX64.EFI"] == before["BOOTX64.EFI"]
    assert files["EFI/BOOT/grubx64.efi"] == "signed systemd-boot"


def test_a_unified_kernel_image_needs_ukify(debian):
    stage = Qemu(boot_loader="systemd-boot", unified_kernel_image=True)
    with pytest.raises(StageError, match="systemd-ukify"):
        stage.run(debian)
    debian.write("/usr/lib/kernel/install.d/60-ukify.install", "")
    stage.run(debian)
    assert "layout=uki\n" in debian.read("/etc/kernel/install.conf")
    assert isinstance(stage._loader(), SystemdBoot)


def test_a_console_of_ones_own_comes_last(debian):
    debian.write("/etc/kernel/cmdline", "console=hvc0 quiet")
    assert boot.command_line(debian, "X").endswith("console=ttyS0,115200 console=hvc0 quiet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boot_loader": "systemd-boot", "partition_table": "msdos"}, "partition-table"),
        ({"unified_kernel_image": True}, "unified-kernel-image"),
        ({"boot_loader": "grub", "unified_kernel_image": True}, "unified-kernel-image"),
        ({"size": "1025G"}, "size: a disk has at most 1024G"),
        ({"formats": ("vdi",), "compress": "zstd"}, "compress"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(options, message):
    with pytest.raises(ValueError, match=message):
        Qemu(**options)


def test_no_boot_loader_is_said_to_start_from_what_it_cannot():
    assert Qemu().refusal("bios") is None
    assert "not from uefi" in Qemu().refusal("uefi")
    assert "not from bios" in Qemu(boot_loader="systemd-boot").refusal("bios")
    unified = Qemu(boot_loader="systemd-boot", unified_kernel_image=True)
    assert unified.refusal("uefi") is None
    assert "not signed" in unified.refusal("uefi-secure")
    for loader in qemu.FIRMWARES:
        stage = Qemu(boot_loader=loader)
        for architecture in (AMD64, ARM64):
            served = stage.firmwares_on(architecture)
            assert [stage.refusal(f, architecture) for f in served] == [None] * len(served)

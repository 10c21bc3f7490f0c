import os
import re
import subprocess

import pytest
from particle_agent.contract.options import Faults
from particle_agent.disk import extlinux, writer
from particle_agent.disk.fstab import FileSystemTable, Mount, own_line
from particle_agent.errors import StageError
from particle_agent.stages.output.qemu import Qemu

MIB = 1 << 20
BOOT_CODE = b"boot code" + bytes(400)


@pytest.fixture
def debian(target, tmp_path, monkeypatch):
    """A target with a kernel; the helper VM has syslinux."""
    target.write("/boot/vmlinuz-6.12", "kernel")
    target.write("/boot/initrd.img-6.12", "initrd")
    boot_code = tmp_path / "gptmbr.bin"
    boot_code.write_bytes(BOOT_CODE)
    for table in extlinux.MBR_CODE:
        monkeypatch.setitem(extlinux.MBR_CODE, table, boot_code)
    return target


def menu(target):
    return target.read("/boot/extlinux/extlinux.conf")


def test_the_disk_is_made_in_order(debian):
    Qemu().run(debian)
    assert debian.programs() == [
        "sfdisk",
        "blockdev",
        "mke2fs",
        "extlinux",
        "tune2fs",
        "sync",
    ]
    assert not any(command.inside for command in debian.commands)
    assert "label: gpt" in debian.only("sfdisk").stdin
    assert "LegacyBIOSBootable" in debian.only("sfdisk").stdin


@pytest.mark.parametrize(
    ("options", "link", "to"),
    [
        ({"file_system": "xfs"}, "/boot", "."),
        ({"file_system": "xfs"}, "/boot", "/run/boot"),
        ({"file_system": "xfs"}, "/boot", "/nothing"),
        ({"boot_loader": "grub"}, "/boot/efi", "../srv"),
        ({"boot_loader": "grub"}, "/boot", "usr/boot"),
        ({"boot_loader": "systemd-boot"}, "/boot/efi", "/efi"),
    ],
)
def test_a_link_in_the_place_of_a_mount_point_is_refused_before_the_work(debian, options, link, to):
    if link == "/boot":
        debian.path("/boot").rename(debian.root / "kept")
        for name, kept in (("vmlinuz", "vmlinuz-6.12"), ("initrd.img", "initrd.img-6.12")):
            debian.symlink(f"/{name}", f"kept/{kept}")
    debian.symlink(link, to)
    with pytest.raises(StageError, match=f"{link} of the image is a link to {to}, and") as raised:
        Qemu(**options).run(debian)
    assert f"Make {link} a directory" in raised.value.hint
    assert debian.commands == []


def test_a_link_is_no_obstacle_without_a_partition_for_it(debian):
    debian.path("/boot").rename(debian.root / "kept")
    debian.symlink("/boot", "kept")
    Qemu().run(debian)
    assert debian.exists("/kept/extlinux/extlinux.conf")


def test_fstab_file_system_and_menu_name_the_same_uuid(debian):
    Qemu().run(debian)
    argv = debian.only("mke2fs").argv
    uuid = argv[argv.index("-U") + 1]
    assert debian.read("/etc/fstab") == f"UUID={uuid} / ext4 errors=remount-ro 0 1\n"
    assert f"root=UUID={uuid} " in menu(debian)


def fstab(target):
    return [line.split() for line in target.read("/etc/fstab").splitlines()]


def test_the_mounts_of_the_recipe_follow_those_of_the_disk(debian):
    data = Mount(what="LABEL=my data", where="/srv/a b", type="ext4", options=("nofail",), pass_=2)
    automatic = ("x-systemd.automount", "_netdev")
    nfs = Mount(what="server:/export", where="/mnt/nfs", type="nfs", options=automatic)
    swap = Mount(what="/dev/disk/by-label/s", where="none", type="swap")
    Qemu(mounts=(data, nfs, swap), swap="64M").run(debian)
    own, *others = fstab(debian)
    assert own[1:] == ["/", "ext4", "errors=remount-ro", "0", "1"]
    assert others == [
        ["/swapfile", "none", "swap", "defaults", "0", "0"],
        ["LABEL=my\\040data", "/srv/a\\040b", "ext4", "nofail", "0", "2"],
        ["server:/export", "/mnt/nfs", "nfs", "x-systemd.automount,_netdev", "0", "0"],
        ["/dev/disk/by-label/s", "none", "swap", "defaults", "0", "0"],
    ]
    assert debian.exists("/srv/a b")
    assert debian.exists("/mnt/nfs")


def test_a_file_system_of_the_disk_gets_more_options(debian):
    Qemu(mounts=(Mount(where="/", options=("noatime", "errors=remount-ro"), pass_=0),)).run(debian)
    assert [line[1:] for line in fstab(debian)] == [
        ["/", "ext4", "errors=remount-ro,noatime", "0", "0"]
    ]
    own = [own_line("UUID=1", "/", "xfs"), own_line("UUID=2", "/boot", "ext4")]
    mounts = [Mount(where="/boot", options=("ro",)), Mount(where="/", options=("noatime",))]
    FileSystemTable(own, mounts).write(debian)
    assert [line[1:] for line in fstab(debian)] == [
        ["/", "xfs", "noatime", "0", "0"],
        ["/boot", "ext4", "errors=remount-ro,ro", "0", "2"],
    ]


ESP = Mount(where="/boot/efi", options=("noatime",))
BOOT = Mount(where="/boot", options=("ro",))
OTHER_BOOT = Mount(where="/boot", what="LABEL=b", type="ext4")


@pytest.mark.parametrize(
    ("options", "mount", "message"),
    [
        ({}, BOOT, "/boot: the disk has no file system for it; write 'what'"),
        ({}, ESP, "/boot/efi: the disk has no file system for it"),
        ({}, Mount(where="/boot", what="LABEL=b"), "/boot: the disk has no file system for it"),
        ({"file_system": "xfs"}, OTHER_BOOT, "/boot is a file system of the image's own disk"),
        ({}, Mount(where="/", what="tmpfs", type="tmpfs"), "/ is a file system of the image's own"),
        ({}, Mount(where="/", type="xfs", options=("ro",)), "leave out 'type'"),
    ],
)
def test_a_mount_that_does_not_fit_the_disk_is_refused_before_the_build(options, mount, message):
    with pytest.raises(Faults, match=message):
        Qemu(mounts=(mount,), **options)


@pytest.mark.parametrize(
    ("options", "mount"),
    [
        ({"boot_loader": "grub"}, ESP),
        ({"boot_loader": "systemd-boot"}, ESP),
        ({"file_system": "xfs"}, BOOT),
        ({}, OTHER_BOOT),
    ],
)
def test_the_boot_loader_decides_about_the_file_systems_of_the_disk(options, mount):
    assert Qemu(mounts=(mount,), **options).mounts == (mount,)


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (Mount(where="/"), "/ is mounted anyway"),
        (Mount(where="/srv", type="ext4"), "/srv: write 'what'"),
        (Mount(where="/srv", what="LABEL=x"), "/srv: write 'type'"),
        (Mount(where="/proc", what="LABEL=x", type="ext4"), "the system itself mounts a proc"),
        (Mount(where="/run", what="LABEL=x", type="ext4"), "the system itself mounts a tmpfs"),
        (Mount(where="/usr", what="LABEL=x", type="ext4"), "a mount at /usr hides the image's own"),
        (Mount(where="/etc", what="/data", type="none", options=("bind",)), "at /etc hides"),
        (Mount(where="/etc/passwd", what="tmpfs", type="tmpfs"), "/etc/passwd is a file"),
        (Mount(where="none", what="LABEL=x", type="ext4"), "'none' is for the type 'swap'"),
        (Mount(where="/srv", what="LABEL=x", type="swap"), "'none' is for the type 'swap'"),
    ],
)
def test_a_mount_that_cannot_be_meant_is_refused_before_the_build(mount, message):
    with pytest.raises(Faults, match=re.escape(message)):
        Qemu(mounts=(mount,))
    twice = Mount(where="/srv", what="LABEL=x", type="ext4")
    with pytest.raises(Faults, match="the mount point '/srv' is there twice"):
        Qemu(mounts=(twice, twice))
    swap = Mount(where="none", what="/swapfile", type="swap")
    with pytest.raises(Faults, match="the swap space '/swapfile' is there twice"):
        Qemu(mounts=(swap, swap))
    with pytest.raises(Faults, match="the option 'swap' makes /swapfile; leave the line out"):
        Qemu(mounts=(swap,), swap="64M")
    assert Qemu(mounts=(swap,)).mounts == (swap,)


def test_the_boot_loader_is_installed_in_a_directory_of_the_image(debian, tmp_path):
    (tmp_path / "outside").mkdir()
    (debian.directory / "mounted/boot").mkdir(parents=True)
    (debian.directory / "mounted/boot/extlinux").symlink_to(tmp_path / "outside")
    Qemu().run(debian)
    mounted = debian.directory / "mounted"
    assert debian.only("extlinux").argv[-1].startswith(f"{mounted}/")
    assert debian.only("extlinux").argv[-1] != f"{mounted}/boot/extlinux"


def test_a_first_boot_needs_systemd():
    assert "package systemd-sysv" in [need.what for need in Qemu(first_boot=True).needs()]
    assert "package systemd-sysv" not in [need.what for need in Qemu().needs()]


@pytest.mark.timeout(60)
def test_a_fifo_in_the_place_of_fstab_is_replaced(debian):
    debian.make_directory("/etc")
    os.mkfifo(debian.path("/etc/fstab"))
    Qemu().run(debian)
    assert debian.is_file("/etc/fstab")


def test_a_note_names_the_lines_of_an_fstab_that_are_lost(debian):
    debian.write("/etc/fstab", "# UNCONFIGURED\n\n")
    Qemu().run(debian)
    assert debian.report.notes == []
    debian.write("/etc/fstab", "# a\nLABEL=x /srv ext4 defaults 0 0\ntmpfs /a tmpfs size=1M\n")
    Qemu().run(debian)
    (note,) = debian.report.notes
    assert "'LABEL=x /srv ext4 defaults 0 0' and 1 more" in note
    assert "'mounts'" in note


def test_two_images_have_different_uuids(debian):
    Qemu().run(debian)
    first = debian.read("/etc/fstab")
    Qemu().run(debian)
    assert debian.read("/etc/fstab") != first


def test_with_a_source_date_nothing_is_random_and_no_time_is_later(debian):
    debian.write("/usr/old", "")
    os.utime(debian.path("/usr/old"), (1, 1))
    debian.symlink("/usr/link", "old")
    debian.source_date = 1_000_000_000

    def commands():
        debian.commands.clear()
        Qemu().run(debian)
        return [(c.argv, c.stdin) for c in debian.commands]

    assert commands() == commands()
    assert "debugfs" in debian.programs()
    for path in debian.root.rglob("*"):
        assert path.lstat().st_mtime <= 1_000_000_000
    assert debian.path("/usr/old").stat().st_mtime == 1
    script = debian.only("debugfs").stdin
    assert "set_super_value wtime @1000000000\n" in script
    first = commands()
    debian.source_date += 1
    assert commands() != first


def test_the_console_is_serial_and_vga(debian):
    Qemu().run(debian)
    assert "console=tty0 console=ttyS0,115200" in menu(debian)
    assert menu(debian).startswith("SERIAL 0 115200\n")


def test_the_words_of_the_recipe_follow_those_of_the_disk(debian):
    debian.write("/etc/kernel/cmdline", "root=/dev/old rw quiet console=hvc0\n")
    Qemu().run(debian)
    (line,) = [line for line in menu(debian).splitlines() if "APPEND" in line]
    assert line.endswith(" ro console=tty0 console=ttyS0,115200 quiet console=hvc0")
    assert line.count("root=") == 1
    assert debian.read("/etc/kernel/cmdline").strip() == line.strip().removeprefix("APPEND ")


def test_a_command_line_that_the_kernel_would_cut_is_refused(debian):
    debian.write("/etc/kernel/cmdline", " ".join(f"option{n}=1" for n in range(200)))
    with pytest.raises(StageError, match="the limit is 2047"):
        Qemu().run(debian)
    assert debian.commands == []


def test_debians_links_to_the_newest_kernel_are_used(debian):
    debian.symlink("/vmlinuz", "boot/vmlinuz-6.12")
    debian.symlink("/initrd.img", "boot/initrd.img-6.12")
    Qemu().run(debian)
    assert "LINUX /vmlinuz\n" in menu(debian)
    assert "INITRD /initrd.img\n" in menu(debian)


def test_without_links_the_kernel_is_named(debian):
    Qemu().run(debian)
    assert "LINUX /boot/vmlinuz-6.12\n" in menu(debian)
    assert "INITRD /boot/initrd.img-6.12\n" in menu(debian)


def test_the_boot_code_is_on_the_disk_and_the_host_hears_of_the_whole(debian):
    Qemu().run(debian)
    disk = debian.directory / "disk"
    with disk.open("rb") as file:
        assert file.read(len(BOOT_CODE)) == BOOT_CODE
    assert debian.report.written == [disk.stat().st_size]


@pytest.mark.parametrize("blocks", [10_000, 10**7])
def test_a_minimal_file_system_has_some_room_and_fits_its_partition(debian, blocks):
    debian.captured["dumpe2fs"] = f"Block count:              {blocks}\n"
    Qemu(size="minimal").run(debian)
    _, last = [c.argv for c in debian.commands if c.argv[0] == "resize2fs"]
    ((before, _), (after, _)) = debian.report.needed
    room = 24 * MIB
    expected = min(-(-blocks * 4096 // MIB) * MIB + room, before - 2 * MIB)
    assert last[-1] == f"{expected // 1024}K"
    assert after == expected + 2 * MIB <= before


def test_boot_code_never_reaches_the_partition_table(debian):
    extlinux.MBR_CODE["gpt"].write_bytes(bytes(441))
    with pytest.raises(StageError, match="441 bytes"):
        Qemu().run(debian)


def test_the_host_is_asked_for_a_disk_that_holds_the_content(debian):
    (debian.root / "content").write_bytes(bytes(20 * MIB))
    Qemu().run(debian)
    ((size, content),) = debian.report.needed
    assert 20 * MIB <= content <= 21 * MIB
    assert size >= content + 68 * MIB
    assert size % MIB == 0


def test_files_with_several_names_count_once(debian):
    (debian.root / "content").write_bytes(bytes(20 * MIB))
    for number in range(10):
        (debian.root / f"name{number}").hardlink_to(debian.root / "content")
    Qemu().run(debian)
    assert debian.report.needed[0][1] <= 21 * MIB


def test_a_given_size_is_taken_exactly(debian):
    Qemu(size="90M").run(debian)
    assert debian.report.needed[0][0] == 90 * MIB


def test_a_size_that_is_too_small_names_the_least_one_and_that_one_works(debian):
    (debian.root / "content").write_bytes(bytes(20 * MIB))
    with pytest.raises(StageError, match="size 50M is too small") as raised:
        Qemu(size="50M").run(debian)
    assert debian.commands == []
    least = re.search(r"'size: (\d+M)'", raised.value.hint).group(1)
    Qemu(size=least).run(debian)
    assert debian.report.needed[0][0] == int(least[:-1]) * MIB


@pytest.mark.slow
def test_many_small_files_get_enough_inodes(debian):
    for number in range(9000):
        (debian.root / f"file{number}").touch()
    Qemu(size="200M").run(debian)
    argv = debian.only("mke2fs").argv
    assert int(argv[argv.index("-N") + 1]) > 9000


@pytest.mark.parametrize(
    ("missing", "message"),
    [("/boot/vmlinuz-6.12", "no kernel"), ("/boot/initrd.img-6.12", "no initramfs")],
)
def test_what_cannot_boot_is_reported_before_anything_runs(debian, missing, message):
    debian.remove(missing)
    with pytest.raises(StageError, match=message) as raised:
        Qemu().run(debian)
    assert "apt stage" in raised.value.hint
    assert debian.commands == []


def test_the_image_is_generalized(debian):
    debian.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    debian.write("/var/lib/apt/lists/some-index", "x")
    Qemu().run(debian)
    assert debian.read("/etc/machine-id") == ""
    assert debian.list("/var/lib/apt/lists") == []


def test_the_tree_is_measured_in_blocks_and_inodes(tmp_path):
    tree = tmp_path / "tree"
    (tree / "many").mkdir(parents=True)
    for number in range(300):
        (tree / f"many/{number:0>40}").write_text("x" * (number % 2))
    (tree / "large").write_bytes(bytes(2 * MIB + 1))
    os.link(tree / "large", tree / "many/again")
    (tree / "link").symlink_to("many")
    (tree / "a\nline").write_text("x")
    directories = 1 + (1 + (300 * (12 + 40) + 12 + 5) // 4096)
    blocks = directories + 300 + 513 + 1 + 1
    assert writer._measure(tree) == (blocks * 4096, 2 + 300 + 1 + 1 + 1)


def test_a_system_that_cannot_be_measured_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    assert writer._measure(tmp_path)[1] == 2
    with pytest.raises(subprocess.CalledProcessError):
        writer._measure(tmp_path / "missing")

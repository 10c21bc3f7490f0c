"""The root file system of an image: its tools, its size, its swap file, its growth."""

import re

import pytest
from particle_agent.disk import copied
from particle_agent.errors import CommandFailed, StageError
from particle_agent.stages.output.qemu import Qemu

from .built_disk import MIB


@pytest.mark.parametrize(("kind", "package"), copied.PACKAGES.items())
def test_the_tools_of_the_root_file_system_must_be_there(debian, kind, package):
    debian.remove(f"/usr/sbin/mkfs.{kind}")
    with pytest.raises(StageError, match=f"'{package}' is not installed") as raised:
        Qemu(file_system=kind).run(debian)
    assert f"Add '{package}'" in raised.value.hint
    assert debian.commands == []


@pytest.mark.parametrize(
    ("table_kind", "package"), [("gpt", "systemd-repart"), ("msdos", "cloud-guest-utils")]
)
def test_what_grows_a_partition_must_be_there(debian, table_kind, package):
    with pytest.raises(StageError, match=f"'{package}' is not installed"):
        Qemu(partition_table=table_kind, grow=True).run(debian)


def test_an_initramfs_with_the_root_file_system_stays(debian):
    Qemu(file_system="xfs").run(debian)
    assert "update-initramfs" not in debian.programs()


def test_an_initramfs_without_the_root_file_system_is_made_again(debian):
    debian.captured["lsinitramfs"] = "usr/lib/modules/6.12/ext4.ko"
    Qemu(file_system="btrfs").run(debian)
    assert debian.only("update-initramfs").argv[1:] == ("-c", "-k", "6.12")


@pytest.mark.parametrize(
    ("file_system", "commands"),
    [
        ("ext4", ["mkswap", "debugfs"]),
        ("xfs", ["fallocate", "mkswap"]),
        ("btrfs", ["chattr", "fallocate", "mkswap"]),
    ],
)
def test_a_swap_file_has_no_holes(debian, file_system, commands):
    Qemu(file_system=file_system, swap="64M").run(debian)
    assert set(debian.modules) == {file_system} - {"ext4"}
    swap = ["mkswap", "debugfs", "chattr", "fallocate"]
    assert [p for p in debian.programs() if p in swap] == commands
    assert "/swapfile none swap defaults 0 0\n" in debian.read("/etc/fstab")
    tree = debian.root if file_system == "ext4" else debian.directory / "mounted"
    swap_file = tree / "swapfile"
    assert swap_file.stat().st_mode & 0o777 == 0o600, "its content was memory"
    assert debian.only("mkswap").argv[-1] == str(swap_file)
    if file_system == "ext4":
        assert debian.only("debugfs").argv[3] == f"fallocate /swapfile 0 {64 * MIB // 4096 - 1}"
        assert swap_file.stat().st_size == 64 * MIB
    else:
        assert debian.only("fallocate").argv[1:] == ("--length", str(64 * MIB), str(swap_file))
    size, content = debian.report.needed[0]
    assert size >= content + 64 * MIB, "there is room for it, but nothing to write"
    others = re.findall(r"size=(\d+)MiB", debian.only("sfdisk").stdin)
    assert all(int(each) < 100 for each in others), "the root holds the swap file"


@pytest.mark.parametrize("least", [40, 200, 10**6])
def test_a_minimal_btrfs_comes_near_the_least_that_its_kernel_takes(debian, least):
    tried = []

    def resize(command):
        *_, wanted, _ = command.argv
        size = int(wanted[:-1]) if wanted.endswith("M") else int(wanted) // MIB
        tried.append(size)
        if size < least and wanted.endswith("M"):
            raise CommandFailed(command.argv, 1, ["No space left on device"])

    (debian.root / "content").write_bytes(bytes(20 * MIB))
    debian.when("btrfs", resize)
    Qemu(file_system="btrfs", boot_loader="grub", size="minimal").run(debian)
    ((full, _), (shrunk, _)) = debian.report.needed
    if least == 10**6:
        assert shrunk == full
    else:
        # The slack, and the precision of the search.
        assert least + 24 <= tried[-1] <= least + 24 + 16
        assert shrunk < full - 64 * MIB
    assert "fstrim" in debian.programs()
    assert len(tried) < 10


def test_a_minimal_xfs_keeps_its_size(debian):
    Qemu(file_system="xfs", boot_loader="grub", size="minimal").run(debian)
    assert len(debian.report.needed) == 1


@pytest.mark.parametrize("file_system", ["ext4", "xfs", "btrfs"])
def test_growing_is_asked_for_where_systemd_looks(debian, file_system):
    debian.write("/usr/bin/systemd-repart", "")
    Qemu(boot_loader="grub", file_system=file_system, grow=True).run(debian)
    root, esp_line = debian.read("/etc/fstab").splitlines()
    assert "x-systemd.growfs" in root
    assert "growfs" not in esp_line
    assert debian.read("/etc/repart.d/50-root.conf") == "[Partition]\nType=root\n"


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_a_swap_file_of_the_base_leads_nowhere(debian, tmp_path, file_system):
    precious = tmp_path / "precious"
    precious.write_text("x")
    (debian.root / "swapfile").symlink_to(precious)
    Qemu(swap="64M", file_system=file_system).run(debian)
    assert not debian.is_link("/swapfile")
    assert precious.read_text() == "x"

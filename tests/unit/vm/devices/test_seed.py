"""The disk for NoCloud, read by programs that know FAT."""

import subprocess

import pytest
from particle_os.errors import UsageError
from particle_os.vm.devices import seed
from particle_os.vm.devices.seed import LIMIT, no_cloud

from ....waiting import HANG_SECONDS

PROGRAMS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def done(*argv):
    return subprocess.run(
        argv, capture_output=True, check=True, timeout=HANG_SECONDS, env=PROGRAMS
    ).stdout  # fmt: skip


@pytest.fixture(params=[b"#cloud-config\n", b"", bytes(511), b"x" * 512, b"y" * 513, b"z" * LIMIT])
def disk(request, tmp_path):
    path = tmp_path / "seed.img"
    path.write_bytes(no_cloud(request.param))
    return path, request.param


@pytest.mark.slow
def test_the_files_have_the_names_that_cloud_init_reads(disk):
    path, content = disk
    assert done("mcopy", "-i", path, "::user-data", "-") == content
    assert done("mcopy", "-i", path, "::meta-data", "-").startswith(b"instance-id: particle-os-")


def test_the_label_is_the_one_that_cloud_init_looks_for(disk):
    path, _ = disk
    found = done("blkid", "-p", "-o", "export", path).decode()
    assert "TYPE=vfat" in found
    assert "LABEL=CIDATA" in found


@pytest.mark.slow
def test_the_file_system_is_sound(disk):
    assert b" files, " in done("fsck.vfat", "-n", disk[0])


def test_other_user_data_is_another_instance():
    assert no_cloud(b"a") != no_cloud(b"b")
    assert no_cloud(b"a") == no_cloud(b"a")


def test_user_data_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        no_cloud(bytes(LIMIT + 1))


def test_a_long_name_ends_before_its_padding():
    (entry,) = seed._long_name("user-data", b"USER-D~1   ")
    name = entry[1:11] + entry[14:26] + entry[28:32]
    assert name == "user-data\0".encode("utf-16-le").ljust(26, b"\xff")

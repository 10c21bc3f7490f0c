"""Each platform gets a file that its written rules allow, with the whole disk in it."""

import gzip
import hashlib
import json
import os
import shlex
import struct
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from particle_os.cli.publishing.export import export_command
from particle_os.publishing.gpt import SECTOR, move_second_table
from particle_os.publishing.platforms import PLATFORMS
from particle_os.system import process

MIB, GIB = 1 << 20, 1 << 30
DISK = 3 * MIB


def with_gpt(path, size):
    """A raw disk with a partition, made by sfdisk, and something in the partition."""
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["sfdisk", "--quiet", path], input=b"label: gpt\nsize=1MiB\n", check=True)
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(b"the partition" * 1000)
    return path


def complaints(path):
    """The complaints of sfdisk about the table of a disk."""
    done = subprocess.run(["sfdisk", "--verify", path], capture_output=True, text=True)
    found = done.stderr.splitlines()
    assert bool(found) != ("No errors detected" in done.stdout)
    return found


@pytest.fixture
def export(tmp_path):
    def run(platform, image="raw", size=DISK, status=0):
        raw = with_gpt(tmp_path / "server.raw", size)
        given = tmp_path / f"server.{image}"
        if image != "raw":
            subprocess.run(
                ["qemu-img", "convert", "-f", "raw", "-O", image, raw, given], check=True
            )
        before = hashlib.sha256(given.read_bytes()).digest()
        out = tmp_path / "out"
        words = [str(given), "--for", platform, "-o", str(out), "--json"]
        done = CliRunner().invoke(export_command, words)
        assert done.exit_code == status, done.output
        assert hashlib.sha256(given.read_bytes()).digest() == before
        if status:
            return done.output
        found = json.loads(done.stdout)
        assert [p.name for p in out.iterdir() if p.name.startswith(".")] == []
        assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=out).returncode == 0
        return found, out / f"server.{PLATFORMS[platform].ending}"

    return run


def raw_of(path, driver, tmp_path):
    back = tmp_path / "back.raw"
    subprocess.run(["qemu-img", "convert", "-f", driver, "-O", "raw", path, back], check=True)
    return back


def begins_like(one, other):
    """Whether a disk begins as a smaller one: without its tables, which move."""
    first, second = one.read_bytes(), other.read_bytes()
    return first[34 * SECTOR : DISK - 34 * SECTOR] == second[34 * SECTOR : DISK - 34 * SECTOR]


@pytest.mark.parametrize("image", ["raw", "qcow2"])
def test_azure_gets_a_fixed_vhd_of_whole_mebibytes(export, tmp_path, image):
    """A fixed VHD is the disk, and then a footer (Microsoft, Virtual Hard Disk Image Format)."""
    found, path = export("azure", image, DISK - 1024)
    assert found["virtual_bytes"] == DISK
    data = path.read_bytes()
    footer = data[-512:]
    assert len(data) == DISK + 512
    assert footer.startswith(b"conectix")
    assert struct.unpack_from(">QQ", footer, 40) == (DISK, DISK)
    assert struct.unpack_from(">I", footer, 60) == (2,), "the type of a fixed disk"
    total = ~sum(footer[:64] + bytes(4) + footer[68:]) & 0xFFFFFFFF
    assert struct.unpack_from(">I", footer, 64) == (total,)
    (tmp_path / "disk").write_bytes(data[:-512])
    assert begins_like(tmp_path / "disk", tmp_path / "server.raw")
    assert complaints(tmp_path / "disk") == []


def test_google_gets_one_sparse_member_of_whole_gibibytes(export, tmp_path):
    found, path = export("gce")
    assert found["virtual_bytes"] == GIB
    with gzip.open(path) as packed:
        head = packed.read(512)
    assert head[257:265] == b"ustar  \0", "the magic of GNU's old format"
    with tarfile.open(path) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.size, member.issparse()) == ("disk.raw", GIB, True)
        archive.extract(member, tmp_path / "there", filter="data")
    disk = tmp_path / "there/disk.raw"
    assert complaints(disk) == []
    with disk.open("rb") as file:
        assert b"the partition" in file.read(2 * MIB)


def test_amazon_gets_the_raw_disk(export, tmp_path):
    found, path = export("ec2", "qcow2")
    assert path.read_bytes() == (tmp_path / "server.raw").read_bytes()
    assert found["command"] == f"aws s3 cp {path} s3://BUCKET/server.raw"


@pytest.mark.parametrize("platform", ["openstack", "proxmox"])
def test_openstack_and_proxmox_get_a_qcow2_file_that_names_no_other_file(
    export, tmp_path, platform
):
    _, path = export(platform)
    info = subprocess.run(
        ["qemu-img", "info", "-f", "qcow2", "--output=json", path], check=True, stdout=-1
    )
    found = json.loads(info.stdout)
    assert "backing-filename" not in found
    assert found["format-specific"]["data"]["compat"] == "1.1"
    assert "data-file" not in found["format-specific"]["data"]
    assert raw_of(path, "qcow2", tmp_path).read_bytes() == (tmp_path / "server.raw").read_bytes()


def test_vmware_gets_a_stream_optimised_disk(export, tmp_path):
    """Bit 16 of the flags says compressed grains, bit 17 markers (VMware, Virtual Disks 5.0)."""
    _, path = export("vmware")
    data = path.read_bytes()
    magic, _, flags = struct.unpack_from("<4sII", data)
    assert magic == b"KDMV"
    assert flags & 0x30000 == 0x30000
    descriptor = data[512 : 512 + 20 * 512]
    assert b'createType="streamOptimized"' in descriptor
    assert b'ddb.adapterType = "lsilogic"' in descriptor
    assert raw_of(path, "vmdk", tmp_path).read_bytes() == (tmp_path / "server.raw").read_bytes()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_command_names_the_file_for_a_shell(platform, tmp_path):
    """Also a file whose name has a space, a quote and a dollar."""
    out = tmp_path / "it's a $HOME"
    with_gpt(tmp_path / "server.raw", DISK)
    words = [str(tmp_path / "server.raw"), "--for", platform, "-o", str(out), "--json"]
    done = CliRunner().invoke(export_command, words)
    assert done.exit_code == 0, done.output
    path = out / f"server.{PLATFORMS[platform].ending}"
    found = shlex.split(json.loads(done.stdout)["command"])
    assert [word for word in found if str(path) in word], found
    shown = subprocess.run(
        ["sh", "-c", f"set -- {json.loads(done.stdout)['command']}; printf '%s\\n' \"$@\""],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.splitlines() == found
    assert path.exists()


def test_an_image_that_names_another_file_is_refused(tmp_path):
    base, image = tmp_path / "base.raw", tmp_path / "x.qcow2"
    with_gpt(base, DISK)
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, image], check=True
    )
    done = CliRunner().invoke(export_command, [str(image), "--for", "azure", "-o", str(tmp_path)])
    assert done.exit_code == 2
    assert not (tmp_path / "x.azure.vhd").exists()


@pytest.mark.parametrize("size", [DISK + SECTOR, 2 * DISK, GIB])
def test_the_second_table_moves_to_the_end(tmp_path, size):
    disk = with_gpt(tmp_path / "disk", DISK)
    os.truncate(disk, size)
    assert complaints(disk) != [], "sfdisk sees that the second table is not at the end"
    move_second_table(disk)
    assert complaints(disk) == []
    dump = subprocess.run(["sfdisk", "--dump", disk], check=True, stdout=-1, text=True).stdout
    assert "size=        2048" in dump
    # Without the first table, the second one is complete.
    with disk.open("r+b") as file:
        file.seek(SECTOR)
        file.write(bytes(SECTOR))
    again = subprocess.run(["sfdisk", "--dump", disk], check=True, stdout=-1, text=True).stdout
    assert again == dump


@pytest.mark.parametrize(
    ("place", "value"),
    [(12, 20), (12, 5000), (80, 0), (80, 1 << 30), (16, 1), (88, 1)],
    ids=["header too small", "header too large", "no entries", "too many entries", "sum of the"
         " header", "sum of the table"],
)  # fmt: skip
def test_a_damaged_table_is_left_as_it_is(tmp_path, place, value):
    disk = with_gpt(tmp_path / "disk", DISK)
    with disk.open("r+b") as file:
        file.seek(SECTOR)
        header = bytearray(file.read(92))
        struct.pack_into("<I", header, place, value)
        if place != 16:
            struct.pack_into("<I", header, 16, zlib.crc32(header[:16] + bytes(4) + header[20:]))
        file.seek(SECTOR)
        file.write(header)
    os.truncate(disk, 2 * DISK)
    before = disk.read_bytes()
    move_second_table(disk)
    assert disk.read_bytes() == before


@pytest.mark.parametrize(
    ("place", "value"),
    [(72, 1 << 62), (72, DISK // SECTOR), (72, 1), (72, 0), (24, 1 << 62), (24, 5)],
)
def test_a_header_with_wild_places_is_an_error_for_the_user(tmp_path, place, value):
    """Its checksum is right, so its places must be on the disk before anything is read there."""
    disk = with_gpt(tmp_path / "server.raw", DISK - 1024)
    with disk.open("r+b") as file:
        file.seek(SECTOR)
        header = bytearray(file.read(92))
        struct.pack_into("<Q", header, place, value)
        struct.pack_into("<I", header, 16, zlib.crc32(header[:16] + bytes(4) + header[20:]))
        file.seek(SECTOR)
        file.write(header)
    done = CliRunner().invoke(
        export_command, [str(disk), "--for", "azure", "-o", str(tmp_path / "out")]
    )
    assert done.exit_code == 2, done.output
    assert "GPT" in done.output
    assert [p for p in (tmp_path / "out").iterdir() if p.suffix == ".vhd"] == []


# Bytes of the partition.
DAMAGE = 2 * MIB


def damaged(made):
    """Another disk in a file that a program has written."""
    if made.suffix == ".gz":
        # The disk that was packed stays as it is.
        place = made.parent / "unpacked"
        with tarfile.open(made) as archive:
            archive.extractall(place, filter="data")
        damaged(place / "disk.raw")
        argv = ["tar", "--format=oldgnu", "--sparse", "-czf", made, "-C", place, "disk.raw"]
        subprocess.run(argv, check=True)
    elif made.suffix in (".qcow2", ".vmdk"):
        driver = made.suffix[1:]
        raw = made.with_name("damaged")
        subprocess.run(["qemu-img", "convert", "-f", driver, "-O", "raw", made, raw], check=True)
        damaged(raw)
        options = ["-o", "subformat=streamOptimized"] if driver == "vmdk" else []
        argv = ["qemu-img", "convert", "-f", "raw", "-O", driver, *options, raw, made]
        subprocess.run(argv, check=True)
    else:
        with made.open("r+b") as file:
            file.seek(DAMAGE)
            file.write(b"another content")


@pytest.mark.parametrize(
    ("platform", "size", "step"),
    [*((platform, DISK, 1) for platform in PLATFORMS), ("gce", DISK, 2),
     ("azure", DISK - 1024, 1), ("azure", DISK - 1024, 2)],
)  # fmt: skip
def test_a_file_that_does_not_hold_the_disk_is_not_published(
    export, tmp_path, monkeypatch, platform, size, step
):
    """A disk that grows, or that is packed, is written in two steps."""
    real, steps = process.run, []

    def run(argv, **options):
        real(argv, **options)
        if argv[0] == "tar" or argv[1] == "convert":
            steps.append(argv[argv.index("--file") + 1] if argv[0] == "tar" else argv[-1])
            if len(steps) == step:
                damaged(Path(steps[-1]))

    monkeypatch.setattr(process, "run", run)
    export(platform, size=size, status=5)
    assert len(steps) == step
    assert list((tmp_path / "out").glob("server.*")) == []


def test_a_disk_without_a_table_is_left_as_it_is(tmp_path):
    for size in (0, 512, 1000, MIB):
        (tmp_path / "disk").write_bytes(bytes(size))
        move_second_table(tmp_path / "disk")
        assert (tmp_path / "disk").read_bytes() == bytes(size)

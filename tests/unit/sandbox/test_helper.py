import gzip
import hashlib
import struct
import subprocess
import tarfile
from dataclasses import replace

import pytest
from particle_os.errors import InfrastructureError
from particle_os.jobs import cache
from particle_os.sandbox import helper, root
from particle_os.system import process
from particle_os.system.workspace import Workspace
from particle_os.vm import cpio

from ...waiting import plenty


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    """The versions of the tools, which need not be installed."""
    versions = {"mmdebstrap": "mmdebstrap 1.5.7", "tar2sqfs": "tar2sqfs 1.3.0"}
    monkeypatch.setattr(process, "identity", versions.__getitem__)
    return versions


def test_the_key_changes_with_everything_that_the_files_depend_on(template, tools):
    changes = [
        {},
        {"packages": (*template.packages, "curl")},
        {"suite": "bookworm"},
        {"mirror": "http://mirror.example/debian"},
        {"kernel": "linux-image-amd64"},
    ]
    keys = [helper.key_of(replace(template, **change)) for change in changes]
    assert len(set(keys)) == len(changes)
    assert helper.key_of(template) == keys[0]
    tools["mmdebstrap"] = "mmdebstrap 1.6.0"
    assert helper.key_of(template) not in keys


def test_a_helper_is_found_only_when_it_was_made(template, tmp_path):
    assert helper.find(template, tmp_path) is None
    place = tmp_path / "helpers" / helper.key_of(template)
    place.mkdir(parents=True)
    assert helper.find(template, tmp_path).kernel == place / "kernel"


def members(archive):
    """The files of a cpio archive (newc): the mode and the content of each name."""
    found, position = {}, 0
    while True:
        header = archive[position : position + 110]
        assert header[:6] == b"070701"
        mode, size, name_size = (int(header[i : i + 8], 16) for i in (14, 54, 94))
        name = archive[position + 110 : position + 110 + name_size - 1].decode()
        position += -(-(110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            assert not archive[position:].strip(b"\0")
            return found
        found[name] = (mode, archive[position : position + size])
        position += -(-size // 4) * 4


def test_the_initrd_holds_what_the_boot_needs(tmp_path):
    collected = {name: name.encode() * 7 for name in ("vmlinuz", "busybox", *root.MODULES)}
    helper._write_initrd(tmp_path / "initrd", collected)
    found = members(gzip.decompress((tmp_path / "initrd").read_bytes()))
    assert found["bin/busybox"] == (0o100755, collected["busybox"])
    assert found["bin"][0] == 0o040755
    assert found["init"][0] == 0o100755
    assert found["init"][1].startswith(b"#!")
    for name in root.MODULES:
        assert found[f"modules/{name}.ko"] == (0o100644, collected[name])


def test_the_kernel_finds_a_second_archive_after_the_first(tmp_path):
    place = tmp_path / "initrd"
    cpio.append(place, [("a", 0o100644, b"first")])
    first = place.stat().st_size
    cpio.append(place, [("b", 0o100600, b"second")])
    data = place.read_bytes()
    assert members(gzip.decompress(data[:first])) == {"a": (0o100644, b"first")}
    assert members(gzip.decompress(data[first:])) == {"b": (0o100600, b"second")}


def test_the_initrd_is_the_same_for_the_same_parts(tmp_path):
    collected = dict.fromkeys(("vmlinuz", "busybox", *root.MODULES), b"x")
    made = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        helper._write_initrd(tmp_path / name / "initrd", collected)
        made.append((tmp_path / name / "initrd").read_bytes())
    assert made[0] == made[1]


def bz_image(content: bytes) -> bytes:
    """A kernel image; only the fields that locate its payload are valid."""
    packed = subprocess.run(["zstd", "-q"], input=content, capture_output=True, check=True).stdout
    payload = packed + struct.pack("<I", len(content))
    header = bytearray(3 * 512 + 64)
    header[0x1F1], header[0x202:0x206] = 2, b"HdrS"
    struct.pack_into("<II", header, 0x248, 64, len(payload))
    return bytes(header) + payload + b"what follows"


@pytest.mark.parametrize(("note", "whole"), [(helper.PVH_NOTE, False), (b"no note", True)])
def test_the_kernel_is_taken_out_of_its_image_if_qemu_can_start_it(tmp_path, note, whole):
    content = b"\x7fELF" + bytes(100) + note + bytes(100)
    image = bz_image(content)
    helper._write_kernel(tmp_path / "kernel", image, plenty())
    assert (tmp_path / "kernel").read_bytes() == (image if whole else content)
    assert [path.name for path in tmp_path.iterdir()] == ["kernel"]


def test_a_kernel_that_is_compressed_otherwise_stays_as_it_is(tmp_path):
    image = bz_image(b"").replace(helper.ZSTD, b"\xfd7zX")
    helper._write_kernel(tmp_path / "kernel", image, plenty())
    assert (tmp_path / "kernel").read_bytes() == image


def test_a_damaged_helper_is_reported(tmp_path):
    made = tmp_path / "helpers" / "key"
    made.mkdir(parents=True)
    for name in helper.FILES:
        (made / name).write_text(name)
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in helper.FILES]
    (made / helper.SUMS).write_text("".join(lines))
    assert cache.damaged(tmp_path) == []
    (made / "kernel").write_text("kernal")
    assert [entry.name for entry in cache.damaged(tmp_path)] == ["key"]
    (made / "kernel").unlink()
    assert [entry.name for entry in cache.damaged(tmp_path)] == ["key"]


def test_a_damaged_helper_is_made_again(template, tmp_path, monkeypatch):
    made = []

    def make(template, directory, log, deadline, proxy):
        made.append(directory)
        for name in helper.FILES:
            (directory / name).write_text(name)
        lines = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in helper.FILES]
        (directory / helper.SUMS).write_text("".join(lines))

    def ensured(number):
        (tmp_path / f"work-{number}").mkdir()
        return helper.ensure(
            template,
            cache=tmp_path,
            work=Workspace(tmp_path / f"work-{number}"),
            log=notes.append,
            note=notes.append,
        )

    notes = []
    monkeypatch.setattr(helper, "_make", make)
    first = ensured(1)
    assert ensured(2) == first
    assert len(made) == 1
    # A kernel that a full disk has cut, for example.
    first.kernel.write_text("kern")
    assert ensured(3) == first
    assert len(made) == 2
    assert helper.intact(first.root.parent)
    assert any("damaged" in note for note in notes)
    for path in (tmp_path / "helpers", first.root.parent):
        assert path.stat().st_mode & 0o077 == 0


def test_a_directory_in_the_place_of_a_file_of_the_helper_is_reported(tmp_path):
    (tmp_path / "vmlinuz").mkdir()
    with tarfile.open(tmp_path / "packages.tar", "w") as archive:
        archive.add(tmp_path / "vmlinuz", "boot/vmlinuz")
    with tarfile.open(tmp_path / "packages.tar") as archive:
        with pytest.raises(InfrastructureError, match=r"boot/vmlinuz .* is not a file"):
            root._content(archive, archive.getmember("boot/vmlinuz"))

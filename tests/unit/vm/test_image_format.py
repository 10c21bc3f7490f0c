import os
import struct
import subprocess

import pytest
from particle_os.errors import UsageError
from particle_os.vm.image_format import FORMATS, _refers, check_readable, image_format


def qcow2(path, *, version=3, backing=0, features=0):
    header = struct.pack(">4sIQIIQIIQQIIQQ", b"QFI\xfb", version, backing, 0, 16, 1 << 20,
                         0, 1, 1 << 16, 1 << 17, 1, 0, 0, features)  # fmt: skip
    path.write_bytes(header + bytes(512))
    return path


def test_formats_are_told_by_their_magic_number(tmp_path):
    raw = tmp_path / "image.qcow2"
    for content in (b"QFI", bytes(1024), b"\xeb\x63\x90" + bytes(1024)):
        raw.write_bytes(content)
        assert image_format(raw) == "raw"
    for version in (2, 3):
        assert image_format(qcow2(tmp_path / "image.raw", version=version)) == "qcow2"


@pytest.mark.parametrize("given", [None, "raw", "qcow2"])
def test_an_empty_file_is_no_image(tmp_path, given):
    image = tmp_path / "image"
    image.touch()
    with pytest.raises(UsageError, match="is empty: the file has no bytes") as caught:
        image_format(image, given)
    assert "make it again" in caught.value.hint


@pytest.mark.parametrize(
    "header",
    [
        {"version": 2, "backing": 104},
        {"version": 3, "backing": 104},
        {"version": 3, "features": 4},
        {"version": 3, "features": 4 | 1},
    ],
)
def test_an_image_that_names_another_file_is_refused(tmp_path, header):
    with pytest.raises(UsageError, match="refers to another file") as caught:
        image_format(qcow2(tmp_path / "image", **header))
    assert "Flatten" in caught.value.hint


def test_other_features_are_no_other_file(tmp_path):
    assert image_format(qcow2(tmp_path / "image", features=1 | 2)) == "qcow2"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"KDMV" + bytes(1024), "format vmdk"),
        (b"# Disk DescriptorFile\nversion=1\n", "format vmdk"),
        (b"<<< QEMU VM Virtual Disk Image >>>\n".ljust(64) + b"\x7f\x10\xda\xbe", "format vdi"),
        (b"conectix" + bytes(1024), "format vhd"),
        (bytes(4096) + b"conectix" + bytes(504), "format vhd"),
        (b"vhdxfile" + bytes(1024), "format vhdx"),
        (b"QFI\xfb\0\0\0\1" + bytes(1024), "format qcow$"),
        (b"QED\0" + bytes(1024), "format qed"),
        (b"WithoutFreeSpace" + bytes(1024), "format parallels"),
        (b"WithouFreSpacExt" + bytes(1024), "format parallels"),
        (b"Bochs Virtual HD Image\0" + bytes(1024), "format bochs"),
        (b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0" + bytes(1024), "format cloop"),
        (bytes(4096) + b"koly" + bytes(508), "format dmg"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "is compressed"),
        (b"\x1f\x8b\x08" + bytes(100), "is compressed"),
        (b"BZh91AY&SY" + bytes(100), "is compressed"),
        (b"\x04\x22\x4d\x18" + bytes(100), "is compressed"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "is compressed"),
        (b"disk.raw".ljust(257, b"\0") + b"ustar" + bytes(250), "is a tar archive"),
    ],
)
def test_what_is_plainly_no_raw_disk_is_not_taken_for_one(tmp_path, content, what):
    image = tmp_path / "image"
    image.write_bytes(content)
    with pytest.raises(UsageError, match=what) as caught:
        image_format(image)
    assert caught.value.hint
    assert image_format(image, "raw") == "raw"


def vmdk(path, *, capacity=2048, descriptor=b"createType=monolithicSparse"):
    head = b"KDMV" + struct.pack("<IIQ", 1, 3, capacity)
    path.write_bytes(head.ljust(512, b"\0") + descriptor.ljust(20 * 512, b"\0"))
    return path


def test_a_format_that_is_given_counts(tmp_path):
    assert image_format(vmdk(tmp_path / "image"), "vmdk") == "vmdk"
    (tmp_path / "image").write_bytes(b"conectix" + bytes(1024))
    assert image_format(tmp_path / "image", "vhd") == "vpc"


@pytest.mark.parametrize("given", sorted(FORMATS.keys() - {"raw"}))
def test_an_image_of_another_format_than_the_given_one_is_refused(tmp_path, given):
    image = tmp_path / "image"
    image.write_bytes(bytes(4096))
    with pytest.raises(UsageError, match=f"not an image of the format {given}"):
        image_format(image, given)


def test_an_encrypted_image_is_refused(tmp_path):
    image = qcow2(tmp_path / "image")
    with image.open("r+b") as file:
        file.seek(32)
        file.write((2).to_bytes(4, "big"))
    with pytest.raises(UsageError, match="is encrypted"):
        image_format(image)


def test_a_damaged_header_is_no_encryption(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"QFI\xfb" + b"\xff" * 4096)
    with pytest.raises(UsageError, match="is damaged"):
        image_format(image)


@pytest.mark.parametrize("given", ["qcow", "qed", "parallels", "vdi", "vhdx", "vmdk", "vhd"])
def test_what_qemu_makes_is_taken_when_the_format_is_given(tmp_path, given):
    driver = FORMATS[given]
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", driver, image, "1M"], check=True)
    assert image_format(image, given) == driver


@pytest.mark.parametrize("given", ["qcow", "qed"])
def test_an_overlay_of_an_older_format_is_refused(tmp_path, given):
    image = tmp_path / "image"
    refers = ["-u", "-b", "/etc/passwd", "-F", "raw"]
    subprocess.run(["qemu-img", "create", "-q", "-f", given, *refers, image, "1M"], check=True)
    with pytest.raises(UsageError, match="refers to another file"):
        image_format(image, given)


def test_qcow_and_qcow2_are_two_formats(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"QFI\xfb\0\0\0\1" + bytes(1024))
    with pytest.raises(UsageError, match="not an image of the format qcow2"):
        image_format(image, "qcow2")
    with pytest.raises(UsageError, match="not an image of the format qcow"):
        image_format(qcow2(image), "qcow")
    image.write_bytes(b"QFI\xfb\0\0\0\1" + bytes(28) + b"\0\0\0\1" + bytes(1024))
    with pytest.raises(UsageError, match="is encrypted"):
        image_format(image, "qcow")


@pytest.mark.parametrize(
    "header", [{"capacity": 0}, {"descriptor": b'x\nparentFileNameHint="/etc/passwd"\n'}]
)
def test_a_vmdk_that_names_another_file_is_refused(tmp_path, header):
    with pytest.raises(UsageError, match="refers to another file"):
        image_format(vmdk(tmp_path / "image", **header), "vmdk")
    (tmp_path / "text").write_text('# Disk DescriptorFile\nRW 8 FLAT "/etc/passwd" 0\n')
    with pytest.raises(UsageError, match="refers to another file"):
        image_format(tmp_path / "text", "vmdk")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="not a regular file"):
        image_format(tmp_path / "fifo")


def test_an_image_with_damaged_headers_is_told_by_what_is_wrong(tmp_path):
    image = tmp_path / "x.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    check_readable(image, "qcow2")
    image.write_bytes(b"QFI\xfb")
    with pytest.raises(UsageError, match="is a damaged qcow2") as caught:
        check_readable(image, "qcow2")
    assert "Unsupported qcow2 version" in caught.value.tail[-1]
    check_readable(image, "raw")


def test_each_byte_of_a_reference_counts_and_no_other():
    """The place of the name of a qcow image, and the features of a qed image."""
    qcow, qed = b"QFI\xfb\0\0\0\1" + bytes(1024), b"QED\0" + bytes(1024)
    cases = [("qcow", qcow, place, 1, place < 16) for place in (8, 15, 16)]
    cases += [("qed", qed, 16, value, bool(value & 1)) for value in (1, 2, 3)]
    cases += [("qed", qed, place, 1, False) for place in (15, 17, 23, 24)]
    for given, head, place, value, refers in cases:
        content = head[:place] + bytes([value]) + head[place + 1 :]
        assert _refers(given, content) is refers, (given, place)


@pytest.mark.parametrize("features", [1, 2, 8, 16])
def test_other_features_of_qcow2_name_no_file(tmp_path, features):
    head = qcow2(tmp_path / "image", features=features).read_bytes()
    assert not _refers("qcow2", head)
    assert _refers("qcow2", qcow2(tmp_path / "image", features=features | 4).read_bytes())
    assert not _refers("qcow2", qcow2(tmp_path / "image", version=2, features=4).read_bytes())

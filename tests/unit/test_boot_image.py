import struct

import pytest
from particle_os.boot.image import image_format
from particle_os.errors import UsageError


def qcow2(path, *, version=3, backing=0, features=0):
    header = struct.pack(">4sIQIIQIIQQIIQQ", b"QFI\xfb", version, backing, 0, 16, 1 << 20,
                         0, 1, 1 << 16, 1 << 17, 1, 0, 0, features)  # fmt: skip
    path.write_bytes(header + bytes(512))
    return path


def test_formats_are_told_by_their_magic_number(tmp_path):
    raw = tmp_path / "image.qcow2"
    for content in (b"", b"QFI", bytes(1024), b"KDMV" + bytes(1024)):
        raw.write_bytes(content)
        assert image_format(raw) == "raw"
    for version in (2, 3):
        assert image_format(qcow2(tmp_path / "image.raw", version=version)) == "qcow2"


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
    with pytest.raises(UsageError, match="refers to another file") as told:
        image_format(qcow2(tmp_path / "image", **header))
    assert "Flatten" in told.value.hint


def test_other_features_are_no_other_file(tmp_path):
    assert image_format(qcow2(tmp_path / "image", features=1 | 2)) == "qcow2"

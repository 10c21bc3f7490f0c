"""Tests of disks and overlays with a real qemu-img."""

import json
import subprocess

import pytest
from particle_os.errors import InfrastructureError
from particle_os.vm.argv import Disk
from particle_os.vm.overlay import copy_disk, make_disk, make_overlay

from ...waiting import plenty


def soon():
    return plenty()


def described(path):
    argv = ["qemu-img", "info", "--output=json", path]
    return json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)


def test_a_disk_has_its_size_and_refers_to_nothing(tmp_path):
    make_disk(tmp_path / "disk", 3 << 20, soon(), what="making the disk")
    found = described(tmp_path / "disk")
    assert (found["format"], found["virtual-size"]) == ("qcow2", 3 << 20)
    assert "backing-filename" not in found


def test_an_overlay_names_its_image_in_full_and_with_its_format(tmp_path, monkeypatch):
    image = tmp_path / "image"
    # A guess at the format would find qcow2.
    make_disk(image, 1 << 20, soon(), what="making the image")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "overlays").mkdir()
    overlay = tmp_path / "overlays" / "overlay"
    make_overlay(overlay, image.relative_to(tmp_path), "raw", soon())
    found = described(overlay)
    assert (found["backing-filename"], found["backing-filename-format"]) == (str(image), "raw")
    assert overlay.stat().st_mode & 0o777 == 0o600


def test_an_overlay_that_cannot_be_made_leaves_nothing(tmp_path):
    with pytest.raises(InfrastructureError, match="making the overlay failed"):
        make_overlay(tmp_path / "overlay", tmp_path / "missing", "raw", soon())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_not_overwritten(tmp_path):
    for name in ("overlay", "image"):
        (tmp_path / name).write_bytes(b"x" * 512)
    with pytest.raises(FileExistsError):
        make_overlay(tmp_path / "overlay", tmp_path / "image", "raw", soon())
    assert (tmp_path / "overlay").read_bytes() == b"x" * 512


def test_a_copy_has_all_layers_of_a_disk_and_refers_to_none(tmp_path):
    paths = [tmp_path / name for name in ("lowest", "middle", "top")]
    for number, path in enumerate(paths):
        make_disk(path, 1 << 20, soon(), what="making the disk")
        subprocess.run(
            [
                "qemu-io",
                "-f",
                "qcow2",
                "-c",
                f"write -q -P {number + 1} {number * 65536} 65536",
                path,
            ],
            check=True,
            capture_output=True,
        )
    *below, top = paths
    disk = Disk(top, "qcow2", "scratch", backing=tuple(below))
    copy_disk(disk, tmp_path / "copy", soon(), what="copying the disk")
    assert "backing-filename" not in described(tmp_path / "copy")
    raw = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", tmp_path / "copy", tmp_path / "raw"]
    subprocess.run(raw, check=True)
    data = (tmp_path / "raw").read_bytes()
    assert [data[number * 65536] for number in range(4)] == [1, 2, 3, 0]

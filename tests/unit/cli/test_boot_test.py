import os

import pytest
from particle_os.boot import session

from .command_line import run


def test_an_image_that_names_other_files_is_refused(tmp_path):
    image = tmp_path / "image.qcow2"
    image.write_bytes(b"QFI\xfb\0\0\0\x03" + (104).to_bytes(8, "big") + bytes(500))
    result = run("boot-test", image, "--accel", "tcg")
    assert result.exit_code == 2
    assert "refers to another file" in result.stderr


@pytest.mark.parametrize(
    ("option", "place", "why"),
    [
        ("--junit", "/proc/x.xml", "No such file"),
        ("--report", "/proc/x.html", "No such file"),
        ("--junit", "missing/x.xml", "there is no such directory"),
        ("--junit", "link", "it is a symbolic link"),
        ("--report", "dangling", "it is a symbolic link"),
        ("--junit", "/dev/full", "it is a device"),
        ("--report", "fifo", "it is a FIFO"),
        ("--evidence", "/proc/x", "No such file"),
        ("--evidence", "file/x", "Not a directory"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_boot(
    tmp_path, monkeypatch, option, place, why
):
    monkeypatch.setattr(session, "boot", None)
    monkeypatch.chdir(tmp_path)
    for name in ("image.raw", "file"):
        (tmp_path / name).write_bytes(bytes(1024))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    result = run("boot-test", "image.raw", "--accel", "tcg", option, place)
    assert result.exit_code == 2
    assert f"{place} cannot be written: {why}" in result.stderr
    assert (tmp_path / "file").read_bytes() == bytes(1024)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("--junit", "image.raw"), ("--report", "image.raw"), ("--evidence", "image.raw"),
        ("--junit", "symbolic"), ("--report", "hard"), ("--junit", "checks.yml"),
    ],
)  # fmt: skip
def test_a_boot_test_does_not_write_to_what_it_reads(tmp_path, monkeypatch, option, place):
    monkeypatch.setattr(session, "boot", None)
    monkeypatch.chdir(tmp_path)
    image, checks = tmp_path / "image.raw", tmp_path / "checks.yml"
    image.write_bytes(bytes(1024))
    checks.write_text("checks: []\n")
    (tmp_path / "symbolic").symlink_to(image)
    (tmp_path / "hard").hardlink_to(image)
    result = run("boot-test", image, "--accel", "tcg", "--checks", checks, option, place)
    assert result.exit_code == 2
    assert "needs it for something else" in result.stderr or "is a file" in result.stderr
    assert (image.read_bytes(), checks.read_text()) == (bytes(1024), "checks: []\n")


def test_a_boot_test_does_not_write_two_reports_to_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "boot", None)
    image, file = tmp_path / "image.raw", tmp_path / "x"
    image.write_bytes(bytes(1024))
    result = run("boot-test", image, "--accel", "tcg", "--junit", file, "--report", file)
    assert result.exit_code == 2
    assert "needs it for something else" in result.stderr

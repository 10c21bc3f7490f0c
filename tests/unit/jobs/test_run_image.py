"""The overlays of running images, made by a real qemu-img."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from particle_os.errors import UsageError
from particle_os.jobs import run_image
from particle_os.vm.overlay import make_overlay

from ...waiting import plenty


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.raw"
    path.write_bytes(bytes(1 << 20))
    os.utime(path, (1000, 1000))
    return path


def soon():
    return plenty()


def overlay(path, image, *more):
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b", str(image)]
    subprocess.run([*argv, *more, path, "1M"], check=True)
    return path


def test_a_kept_overlay_is_used_again(tmp_path, image, monkeypatch):
    kept = tmp_path / "kept.qcow2"
    make_overlay(kept, image, "raw", soon())
    assert kept.stat().st_mode & 0o777 == 0o600
    monkeypatch.chdir(tmp_path)
    run_image._check_overlay(kept, image.relative_to(tmp_path), "raw", soon())


def test_a_changed_image_does_not_fit_its_overlay(tmp_path, image):
    kept = tmp_path / "kept.qcow2"
    make_overlay(kept, image, "raw", soon())
    os.utime(image, (2e9, 2e9))
    with pytest.raises(UsageError, match="has changed since") as raised:
        run_image._check_overlay(kept, image, "raw", soon())
    assert "away" in raised.value.hint


@pytest.mark.parametrize("what", ["text", "other image", "other format", "alone", "data elsewhere"])
def test_any_other_file_is_neither_used_nor_changed(tmp_path, image, what):
    kept = tmp_path / "kept.qcow2"
    elsewhere = ["-o", f"data_file={tmp_path}/data"]
    match what:
        case "text":
            kept.write_text("a letter")
        case "other image":
            overlay(kept, "/etc/passwd")
        case "other format":
            make_overlay(kept, image, "raw", soon())
        case "alone":
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", kept, "1M"], check=True)
        case _:
            overlay(kept, image, *elsewhere)
    before = kept.read_bytes()
    with pytest.raises(UsageError, match="is no overlay over") as raised:
        run_image._check_overlay(kept, image, "vmdk" if what == "other format" else "raw", soon())
    assert "another directory" in raised.value.hint
    assert kept.read_bytes() == before


@pytest.mark.parametrize("terminals", [(True, False), (False, True), (False, False)])
def test_an_image_needs_a_terminal_for_input_and_for_output(monkeypatch, terminals):
    for name, is_terminal in zip(("stdin", "stdout"), terminals, strict=True):
        monkeypatch.setattr(sys, name, SimpleNamespace(isatty=lambda found=is_terminal: found))
    with pytest.raises(UsageError, match="not a terminal"):
        run_image.check_terminal()


def test_a_terminal_is_enough(monkeypatch):
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(sys, name, SimpleNamespace(isatty=lambda: True))
    assert run_image.check_terminal() is None

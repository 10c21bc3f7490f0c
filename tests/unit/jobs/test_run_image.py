"""The overlays of running images, made by a real qemu-img."""

import os
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from particle_os.boot.machines.extras import Extras
from particle_os.errors import UsageError
from particle_os.jobs import run_image
from particle_os.vm.accel import TCG
from particle_os.vm.argv import Forward
from particle_os.vm.devices import seed
from particle_os.vm.machine import confinement
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


def started(tmp_path, image, monkeypatch, extras, forwards, *, ssh=False):
    """The machine that runs, and what the user reads."""
    seen, told = [], []

    @contextmanager
    def running(spec, **options):
        seen.append(spec)
        yield SimpleNamespace(monitor=SimpleNamespace(forwards=lambda deadline: forwards))

    monkeypatch.setattr(run_image, "check_terminal", lambda: None)
    monkeypatch.setattr(run_image, "running", running)
    monkeypatch.setattr(run_image, "_converse", lambda machine: None)
    run_image.run(
        image, TCG, format="raw", directory=tmp_path / "run", tell=told.append,
        close=lambda: None, ssh=ssh, extras=extras,
    )  # fmt: skip
    return seen[0], told


def test_further_disks_are_never_changed_and_have_their_formats(tmp_path, image, monkeypatch):
    more = tmp_path / "a,b=json:{}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"./{more.name}", "1M"],
                   check=True, cwd=tmp_path)  # fmt: skip
    extras = Extras([(image, "raw"), (more, "qcow2")])
    spec, _ = started(tmp_path, image, monkeypatch, extras, {})
    below = [(disk.image.path, disk.image.format) for disk in spec.disks]
    assert below == [(image, "raw"), (image, "raw"), (more, "qcow2")]
    assert len({disk.serial for disk in spec.disks}) == 3
    writes = confinement(spec, tmp_path).writes
    assert not {image, more} & set(writes)


def test_user_data_is_a_disk_that_cannot_be_written(tmp_path, image, monkeypatch):
    spec, _ = started(tmp_path, image, monkeypatch, Extras(user_data=b"#x"), {})
    disk = spec.disks[-1]
    assert (disk.format, disk.read_only) == ("raw", True)
    assert disk.path.read_bytes() == seed.no_cloud(b"#x")


def test_the_ports_that_lead_to_the_image_are_shown(tmp_path, image, monkeypatch):
    extras = Extras(forwards=(Forward(80, 8080), Forward(443)))
    chosen = {22: 40001, 80: 8080, 443: 40002}
    spec, told = started(tmp_path, image, monkeypatch, extras, chosen, ssh=True)
    for guest, host in chosen.items():
        assert f"port {guest} of the image: 127.0.0.1:{host}" in told
    assert "SSH server of the image: ssh -p 40001 USER@127.0.0.1" in told
    # Landlock lets QEMU listen on the port that the user names.
    assert confinement(spec, tmp_path).listens == (8080,)

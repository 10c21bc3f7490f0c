"""Names of files that QEMU's tools and zstd could take for protocols or options."""

import json
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest
from particle_os.base.tarball import architecture_of
from particle_os.boot.evidence import Evidence
from particle_os.boot.request import BootRequest
from particle_os.errors import UsageError
from particle_os.jobs import artifact, run_image
from particle_os.system.checksum import file_sha256
from particle_os.system.gate import Gate
from particle_os.vm.accel import Acceleration, Processors
from particle_os.vm.argv import blockdev
from particle_os.vm.image_format import check_readable, image_format
from particle_os.vm.overlay import copy_disk, make_disk, make_overlay

from ...waiting import plenty

pytestmark = pytest.mark.slow

HOSTILE = [
    "nbd:127.0.0.1:1",
    "json:{}",
    'json:{"driver":"null-co"}',
    "fat:rw:x",
    "file:x",
    "-rf.qcow2",
    "--help",
    "a,b.qcow2",
    "a,file.filename=x",
    "a,,b",
    "driver=raw",
    "a:b",
    "new\nline",
    " blank ",
    "%41",
    "$(id)",
    "ünï\u202e",
]


@pytest.fixture(params=HOSTILE)
def name(request, tmp_path, monkeypatch):
    """A hostile name, relative to the current directory, as on a command line."""
    monkeypatch.chdir(tmp_path)
    return Path(request.param)


def made(path):
    # The tool is given a harmless name, so that the hostile name is first seen by the code.
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "x.made", "1M"], check=True)
    Path("x.made").rename(path)
    return path


def booted(image, overlay):
    """The disk of the machine that boots `image`."""
    request = BootRequest(
        image=image,
        format="qcow2",
        acceleration=Acceleration("tcg", "", 1.0),
        processors=Processors(1, x2apic=False),
        evidence=Evidence(Path("evidence"), image, plot=False, gate=Gate()),
        checks=(),
        memory=1 << 30,
        seconds=1,
        on_phase=lambda phase, seconds: None,
        on_line=lambda line: None,
        console_only=True,
    )
    (disk,) = request.machine(overlay, Path(), "nonce").disks
    return disk


def test_an_image_is_recognized_and_its_headers_are_read(name):
    made(name)
    assert image_format(name) == "qcow2"
    check_readable(name, "qcow2")


def test_an_image_is_run_through_an_overlay_under_any_name(name):
    made(name)
    overlay = name.with_name(f"{name.name}.overlay.qcow2")
    make_overlay(overlay, name, "qcow2", plenty())
    run_image._check_overlay(overlay, name, "qcow2", plenty())
    other = made(name.with_name("other"))
    with pytest.raises(UsageError, match="is no overlay over"):
        run_image._check_overlay(overlay, other, "qcow2", plenty())


def test_a_machine_opens_the_named_image_and_nothing_that_a_header_names(name):
    """qemu-img opens the disk of the boot test's machine as QEMU does."""
    made(name)
    overlay = name.with_name("overlay.qcow2")
    make_overlay(overlay, name, "qcow2", plenty())
    disk = booted(name, overlay)
    below = blockdev(disk, "x")["backing"]
    assert (below["driver"], below["file"]["driver"]) == ("qcow2", "file")
    assert below["file"]["filename"] == str(name.absolute())
    assert below["backing"] is None
    copy_disk(disk, name.with_name("copy"), plenty(), what="copying")


def test_a_disk_is_converted_and_compared(name):
    raw, target = name, name.with_name(f"{name.name}.vmdk")
    raw.write_bytes(b"x" * 65536)
    artifact.convert(raw, target, "vmdk", plenty())
    target.unlink()
    artifact.convert(raw, target, "qcow2", plenty(), compressed=True)
    assert image_format(target) == "qcow2"


def test_a_disk_is_compressed(name):
    name.write_bytes(b"x" * 65536)
    target = name.with_name(f"{name.name}.zst")
    artifact.compress(name, target, file_sha256(name), plenty())
    assert target.exists()


def test_an_empty_disk_is_made(name):
    make_disk(name, 1 << 20, plenty(), what="making the disk")
    assert image_format(name) == "qcow2"


def test_a_compressed_base_is_read(name):
    with tarfile.open("x.tar", "w"):
        pass
    subprocess.run(["zstd", "-q", "--rm", "x.tar"], check=True)
    Path("x.tar.zst").rename(name)
    assert architecture_of(name) is None


def test_no_name_makes_a_connection(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        image = made(Path(f"nbd:127.0.0.1:{server.getsockname()[1]}"))
        check_readable(image, "qcow2")
        make_overlay(Path("overlay"), image, "qcow2", plenty())
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_name_that_qemu_cannot_hold_is_refused(tmp_path):
    image = tmp_path / "caf\udce9.raw"
    image.write_bytes(bytes(512))
    with pytest.raises(UsageError, match="is not UTF-8"):
        image_format(image)


def test_what_the_image_says_of_other_files_is_not_believed_after_the_check(tmp_path):
    """An image that is exchanged after it was checked brings in no other file."""
    image, overlay = tmp_path / "image", tmp_path / "overlay"
    make_disk(image, 1 << 20, plenty(), what="making the image")
    make_overlay(overlay, image, "qcow2", plenty())
    (tmp_path / "secret").write_bytes(b"secret".ljust(1 << 20, b"."))
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", tmp_path / "secret"]
    subprocess.run([*argv, image], check=True)
    disk = booted(image, overlay)
    copy_disk(disk, tmp_path / "copy", plenty(), what="copying")
    info = ["qemu-img", "map", "--output=json", "-f", "qcow2", tmp_path / "copy"]
    found = json.loads(subprocess.run(info, check=True, capture_output=True).stdout)
    assert not any(part["data"] for part in found)

"""Independent programs read what was pushed, and `pull` reads what they have pushed."""

import io
import json
import subprocess
import tarfile

import pytest

from ...registry import sha256 as digest_of
from .conftest import sha256
from .foreign import DISK, packed


@pytest.mark.slow
@pytest.mark.parametrize("way", ["containerdisk", "artifact", "both"])
def test_debians_registry_and_skopeo_understand_it(debian, published, tmp_path, way):
    """An independent program reads what was pushed."""
    pushed = debian.push(published.file("qcow2"), debian.place, "--as", way)
    shown = debian.pull()
    assert shown["status"] == "passed"
    assert shown["sha256"] == sha256(published.file("qcow2"))
    skopeo = ["skopeo", "--override-os", "linux", "--override-arch", "amd64"]
    tls = "--tls-verify=false"
    raw = subprocess.run(
        [*skopeo, "inspect", "--raw", tls, debian.place], check=True, stdout=-1
    ).stdout
    assert f"sha256:{digest_of(raw)}" == pushed["digest"]
    if way != "artifact":
        check_image(skopeo, debian, published, tmp_path)


def check_image(skopeo, debian, published, tmp_path):
    """Lets skopeo copy the containerdisk, and looks for the disk in its layer."""
    tls = "--tls-verify=false"
    inspected = json.loads(
        subprocess.run([*skopeo, "inspect", tls, debian.place], check=True, stdout=-1).stdout
    )
    assert (inspected["Architecture"], inspected["Os"]) == ("amd64", "linux")
    copy = tmp_path / "copy"
    argv = [*skopeo, "copy", "-q", "--src-tls-verify=false", debian.place, f"dir:{copy}"]
    subprocess.run(argv, check=True)
    (layer,) = json.loads((copy / "manifest.json").read_text())["layers"]
    blob = copy / layer["digest"].removeprefix("sha256:")
    archive = subprocess.run(["zstd", "-dc", blob], check=True, stdout=-1).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.extractfile("disk/server.qcow2").read() == (published.file("qcow2").read_bytes())


@pytest.mark.slow
def test_a_containerdisk_that_skopeo_has_pushed_is_pulled(debian, tmp_path):
    """`skopeo copy tarball:` makes an image of one layer, as a Dockerfile from scratch does."""
    archive = tmp_path / "disk.tar"
    archive.write_bytes(packed(("disk/fedora.img", DISK), compress=lambda data: data))
    argv = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"tarball:{archive}", debian.place]
    subprocess.run(argv, check=True)
    assert debian.pull()["sha256"] == digest_of(DISK)

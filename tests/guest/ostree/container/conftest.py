"""The tree of a commit, the image that is made of it, and the ways to read the image again."""

import io
import json
import subprocess
import tarfile
from types import SimpleNamespace

import pytest
from particle_agent.ostree.container import archive, settings

DATE = 1_700_000_000
REF, CHECKSUM = "debian/13/amd64/edge", "0123456789abcdef" * 4
EMPTY = ("boot", "dev", "proc", "run", "sys", "sysroot", "tmp", "var")
PREPARE_ROOT = "usr/lib/ostree/prepare-root.conf"


@pytest.fixture
def commit(target):
    """A target in the form of a commit, as the stage `ostree` leaves it."""
    target.write("/usr/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    target.write("/usr/etc/group", "root:x:0:\n")
    target.write("/usr/lib/sysusers.d/a.conf", "g root 0\nu root 0:root\n")
    target.write("/usr/lib/modules/6.12/vmlinuz", "kernel")
    target.write("/usr/lib/modules/6.12/initramfs.img", "initramfs")
    target.write(f"/{PREPARE_ROOT}", "[composefs]\nenabled = yes\n")
    target.write("/usr/bin/tool", "program" * 1000, mode=0o4755)
    target.write("/usr/share/doc/tool", "text")
    for name in EMPTY:
        target.make_directory(f"/{name}")
    target.path("/tmp").chmod(0o1777)
    target.symlink("/ostree", "sysroot/ostree")
    target.symlink("/home", "var/home")
    settings.write(target, "debian")
    target.source_date = DATE
    return target


@pytest.fixture
def image(commit):
    """A function that writes the image, and returns its file, documents and layer."""

    def image():
        archive.write(commit, REF, CHECKSUM, "13.1")
        path = commit.directory / "oci-archive"
        written = commit.report.written[-1]
        with path.open("r+b") as file:
            file.truncate(written)
        return opened(path)

    return image


def opened(path):
    """The documents and the layer of an image."""
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    index = json.loads(files["index.json"])
    manifest = json.loads(blob(files, index["manifests"][0]))
    layer = blob(files, manifest["layers"][0])
    plain = subprocess.run(["zstd", "-dc"], input=layer, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        members = {member.name: member for member in tar}
    return SimpleNamespace(
        path=path,
        files=files,
        index=index,
        manifest=manifest,
        config=json.loads(blob(files, manifest["config"])),
        layer=plain,
        members=members,
    )


def blob(files, descriptor):
    return files["blobs/" + descriptor["digest"].replace(":", "/")]

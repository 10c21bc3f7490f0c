"""The OCI image of a commit: its documents, its layer, and the programs that accept it."""

import hashlib
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace

import pytest
from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.ostree.container import archive, documents, layer
from particle_agent.unpack import layers, lowest

from .conftest import CHECKSUM, DATE, REF


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_each_blob_has_its_digest_and_its_size(image):
    found = image()
    assert found.files["oci-layout"] == b'{"imageLayoutVersion":"1.0.0"}'
    blobs = {name: data for name, data in found.files.items() if name.startswith("blobs/")}
    for name, data in blobs.items():
        assert name == "blobs/" + digest(data).replace(":", "/")
    named = [found.index["manifests"][0], found.manifest["config"], *found.manifest["layers"]]
    assert {each["digest"]: each["size"] for each in named} == {
        digest(data): len(data) for data in blobs.values()
    }
    assert found.config["rootfs"]["diff_ids"] == [digest(found.layer)]


def test_the_configuration_names_the_system_and_its_commit(image):
    config = image().config
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert config["created"] == "2023-11-14T22:13:20Z"
    assert config["config"]["Labels"] == {
        "containers.bootc": "1",
        "ostree.bootable": "true",
        "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
        "org.opencontainers.image.title": "testbox",
        "org.opencontainers.image.version": "13.1",
        "particle-os.commit": CHECKSUM,
        "particle-os.ref": REF,
    }
    (step,) = config["history"]
    assert step["created"] == config["created"]


def test_a_commit_without_a_version_has_no_label_of_it(commit):
    archive.write(commit, REF, CHECKSUM, None)
    found = documents.ImageDescription("a", REF, CHECKSUM, None, DATE)
    assert "org.opencontainers.image.version" not in found.labels
    assert "org.opencontainers.image.version" in replace(found, version="1").labels


def test_etc_is_where_containers_have_it(image):
    names = set(image().members)
    assert "etc/passwd" in names
    assert not any(name.startswith("usr/etc") for name in names)


def test_links_in_etc_lead_to_etc(commit, image):
    os.link(commit.path("/usr/etc/passwd"), commit.path("/usr/share/passwd", follow=False))
    found = image().members["usr/share/passwd"]
    assert (found.type, found.linkname) == (tarfile.LNKTYPE, "etc/passwd")


def test_the_layer_keeps_what_files_are(commit, image):
    tool = commit.path("/usr/bin/tool")
    os.link(tool, commit.path("/usr/bin/zz-same", follow=False))
    os.setxattr(tool, "user.tool", b"\xff\x00\xfe=\n")
    os.utime(tool, (1, 1))
    commit.write("/usr/share/" + "d" * 120 + "/ä", "content")
    found = image().members
    assert (found["usr/bin/tool"].mode, found["usr/bin/tool"].mtime) == (0o4755, 1)
    value = found["usr/bin/tool"].pax_headers["SCHILY.xattr.user.tool"]
    assert value.encode("utf-8", "surrogateescape") == b"\xff\x00\xfe=\n"
    assert found["usr/bin/zz-same"].linkname == "usr/bin/tool"
    assert found["tmp"].mode == 0o1777
    assert found["home"].linkname == "var/home"
    status = tool.stat()
    assert (found["usr/bin/tool"].uid, found["usr/bin/tool"].gid) == (status.st_uid, status.st_gid)
    assert found["usr/bin/tool"].uname == ""
    assert "usr/share/" + "d" * 120 + "/ä" in found


def test_no_time_is_later_than_the_source_date(image):
    assert max(member.mtime for member in image().members.values()) == DATE


def test_two_builds_are_the_same_to_the_bit(commit, image):
    first = image().path.read_bytes()
    for path in commit.root.rglob("*"):
        os.utime(path, (DATE + 100, DATE + 200), follow_symlinks=False)
    assert image().path.read_bytes() == first


def test_directories_of_var_are_there_unless_the_tree_has_them(commit):
    commit.make_directory("/var/lib/kept", mode=0o711)
    commit.write("/usr/share/dpkg/database/status", "")
    wanted = [layer.VarDirectory(f"var/lib/{name}", 0o750, 5, 6) for name in ("kept", "made")]
    found = [member.header for member in layer.of_var(commit.root, wanted, DATE)]
    assert [(each.name, each.isdir()) for each in found] == [
        ("var/lib/made", True),
        ("var/lib/dpkg", False),
    ]
    assert (found[0].mode, found[0].uid, found[0].gid, found[0].mtime) == (0o750, 5, 6, DATE)
    commit.make_directory("/var/lib/dpkg")
    assert [member.name for member in layer.of_var(commit.root, (), DATE)] == []


@pytest.mark.parametrize("apply", [layers.apply, lowest.apply])
def test_our_own_builder_unpacks_the_layer(image, tmp_path, apply):
    found = image()
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "layer").write_bytes(found.layer)
    with (tmp_path / "layer").open("rb") as stream:
        apply(stream, root)
    assert (root / "etc/passwd").read_text() == "root:x:0:0::/root:/bin/sh\n"
    assert (root / "usr/bin/tool").stat().st_mode & 0o7777 == 0o4755
    assert os.readlink(root / "ostree") == "sysroot/ostree"
    names = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert names == set(found.members)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo")
def test_skopeo_accepts_the_archive(image, tmp_path):
    found = image()
    archived = f"oci-archive:{found.path}"
    argv = ["skopeo", "--override-arch=amd64", f"--tmpdir={tmp_path}"]
    shown = subprocess.run([*argv, "inspect", archived], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert '"containers.bootc": "1"' in shown.stdout
    assert found.manifest["layers"][0]["digest"] in shown.stdout
    # skopeo checks the digests of what it copies.
    copied = subprocess.run(
        [*argv, "--insecure-policy", "copy", archived, f"dir:{tmp_path}/copy"],
        capture_output=True,
        text=True,
    )
    assert copied.returncode == 0, copied.stderr


def test_a_device_is_refused(commit):
    os.mkfifo(commit.path("/usr/share/pipe", follow=False))
    with pytest.raises(StageError, match="/usr/share/pipe is neither"):
        archive.write(commit, REF, CHECKSUM, None)
    assert commit.report.written == []


def test_a_file_that_shrinks_meanwhile_is_an_error(commit, monkeypatch):
    def members(tree, latest):
        for member in real(tree, latest):
            if member.name == "usr/bin/tool":
                member.place.write_text("")
            yield member

    real = layer.members
    monkeypatch.setattr(layer, "members", members)
    with pytest.raises(StageError, match="/usr/bin/tool became shorter"):
        archive.write(commit, REF, CHECKSUM, None)


def test_a_compressor_that_fails_is_an_error(commit, monkeypatch):
    commit.path("/usr/share/large", follow=False).write_bytes(bytes(1 << 22))
    monkeypatch.setattr(archive, "COMPRESSOR", ("sh", "-c", "exit 3"))
    with pytest.raises(EnvironmentFailed, match="status 3"):
        archive.write(commit, REF, CHECKSUM, None)
    assert commit.report.written == []


def test_a_full_disk_is_an_error(commit, monkeypatch):
    commit.path("/usr/share/large", follow=False).write_bytes(os.urandom(1 << 22))

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        archive._write_layer(Full(), layer.members(commit.root, None))

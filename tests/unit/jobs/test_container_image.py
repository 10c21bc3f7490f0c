"""The container image that the guest has written is checked before it is published."""

import hashlib
import io
import json
import tarfile

import pytest
from particle_agent.ostree.container import archive, documents, layer
from particle_os.base import container
from particle_os.errors import InfrastructureError
from particle_os.jobs import container_image
from particle_os.system.workspace import cache_directory, workspace

from ...waiting import plenty
from .. import played_build
from ..base.containers import describe, unpacked
from ..played_build import World

RECIPE = """\
name: leaky
base-image: tar:base.tar
stages:
  - {type: timezone, zone: UTC, secrets: [{name: token, env: TOKEN}]}
  - type: ostree
    ref: edge
"""
IMAGE = documents.ImageDescription("edge", "debian/13/amd64/edge", "0" * 64, "1\n", 1_700_000_000)
ZSTD = b"\x28\xb5\x2f\xfd"


@pytest.fixture
def path(tmp_path):
    """An archive as the guest writes it, of a small tree."""
    tree = tmp_path / "tree"
    (tree / "usr/etc").mkdir(parents=True)
    (tree / "usr/etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tree / "usr/tool").write_text("program")
    path = tmp_path / "edge.oci.tar"
    with path.open("w+b") as file:
        archive.write_to(file, IMAGE, layer.members(tree, None))
    return path


def read(path, architecture="amd64"):
    return container_image.read(path, architecture, plenty())


def test_a_whole_image_is_described(path):
    found = read(path)
    with tarfile.open(path) as tar:
        index = json.load(tar.extractfile("index.json"))
        (descriptor,) = index["manifests"]
        (blob,) = found.layers
        data = tar.extractfile("blobs/" + blob.digest.replace(":", "/")).read()
    assert found.digest == descriptor["digest"]
    assert blob.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert blob.bytes == len(data)
    assert found.labels["containers.bootc"] == "1"
    assert found.labels["org.opencontainers.image.version"] == "1\\n", "texts are printable"


def test_our_own_builder_takes_the_image_as_a_base(path, tmp_path):
    image = describe(f"oci-archive:{path}")
    assert image.digest == read(path).digest
    assert image.config["Labels"]["ostree.bootable"] == "true"
    with workspace() as work:
        source = container.parse(image.reference, tmp_path)
        soon = plenty()
        container.fetch(image, source, cache=cache_directory(), work=work, deadline=soon, log=print)
    assert unpacked(image, tmp_path / "out") == {"etc/passwd", "usr/tool"}


def changed(path, change):
    """Writes the archive again, with changed members: `change` gets and returns a dictionary."""
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    files = change(files)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def without(name):
    return lambda files: {each: data for each, data in files.items() if each != name}


def replaced(old, new):
    """Replaces text in the documents, with new digests above."""

    def change(files):
        index = json.loads(files.pop("index.json"))
        names = [f"blobs/sha256/{index['manifests'][0]['digest'].removeprefix('sha256:')}"]
        manifest = json.loads(files.pop(names[0]))
        config = files.pop("blobs/" + manifest["config"]["digest"].replace(":", "/"))
        config = config.replace(old, new)
        manifest["config"] |= put(files, config)
        text = json.dumps(manifest).encode().replace(old, new)
        index["manifests"][0] |= put(files, text)
        files["index.json"] = json.dumps(index).encode().replace(old, new)
        return files

    return change


def put(files, data):
    digest = hashlib.sha256(data).hexdigest()
    files[f"blobs/sha256/{digest}"] = data
    return {"digest": f"sha256:{digest}", "size": len(data)}


def flipped(files):
    """The layer with another last byte."""
    name = next(name for name in files if files[name][:4] == ZSTD)
    last = files[name][-1] ^ 1
    return {**files, name: files[name][:-1] + bytes([last])}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (flipped, "has the digest sha256:"),
        (without("oci-layout"), "its member oci-layout is missing"),
        (without("index.json"), "its member index.json is missing"),
        (lambda files: {**files, "oci-layout": b"{"}, "names another version"),
        (lambda files: {**files, "index.json": b"[]"}, "is not a JSON object"),
        (lambda files: {**files, "more": b""}, "nothing names its member more"),
        (lambda files: {**files, "../up": b""}, "nothing names its member ../up"),
        (lambda files: files | {str(n): b"" for n in range(20)}, "more than 16 members"),
        (replaced(b'"containers.bootc":"1"', b'"containers.bootc":"0"'), "lacks the labels"),
        (replaced(b'"Labels":{', b'"Other":{'), "lacks the labels"),
        (replaced(b"amd64", b"arm64"), "is for arm64, and amd64 is wanted"),
        (replaced(b"tar+zstd", b"tar+lzma"), "a layer of an unknown kind"),
        (replaced(b'"diff_ids":["', b'"diff_ids":["x'), "is invalid"),
    ],
)
def test_another_archive_is_refused(path, change, why):
    changed(path, change)
    with pytest.raises(InfrastructureError, match="cannot be used") as raised:
        read(path)
    assert why in raised.value.brief


@pytest.fixture
def world(path, tmp_path, monkeypatch):
    """A build that publishes the image alone."""
    made = World(tmp_path, "text", [], b"", "detail")
    made.written = ((), ("oci-archive",))
    made.contents = {"oci-archive": path.read_bytes()}
    monkeypatch.setenv("TOKEN", "a secret value")
    played_build.set_up(made, monkeypatch)
    text = RECIPE.replace("ref: edge", "ref: edge\n    publish: [oci-archive]")
    (tmp_path / "leaky.yml").write_text(text)
    return made


def test_the_image_is_published_with_its_digest(world, path):
    ended = played_build.run(world, "--json", "--progress", "none")
    assert ended.exit_code == 0, ended.output
    result, expected = json.loads(ended.stdout), read(path)
    (artifact,) = result["artifacts"]
    assert (artifact["path"], artifact["format"]) == ("leaky.oci.tar", "oci-archive")
    assert (world.out / "leaky.oci.tar").read_bytes() == path.read_bytes()
    assert result["container"] == expected.model_dump(mode="json")
    assert f"{artifact['sha256']}  leaky.oci.tar" in (world.out / "SHA256SUMS").read_text()
    page = (world.out / "leaky.report.html").read_text()
    assert expected.digest in page
    assert expected.layers[0].digest in page
    assert "containers.bootc=1" in page


def test_an_image_that_is_not_whole_is_not_published(world):
    world.contents = {"oci-archive": played_build.DISK}
    ended = played_build.run(world, "--progress", "none")
    assert ended.exit_code == 5
    assert "wrote a container image that cannot be used" in ended.output
    assert not (world.out / "leaky.oci.tar").exists()


def test_a_member_that_is_there_twice_or_a_link_is_refused(path):
    for kind in (tarfile.REGTYPE, tarfile.SYMTYPE):
        again = path.with_name("again.tar")
        again.write_bytes(path.read_bytes())
        with tarfile.open(again, "a") as tar:
            info = tarfile.TarInfo("index.json" if kind == tarfile.REGTYPE else "link")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        with pytest.raises(InfrastructureError, match="is there twice, or is no plain file"):
            read(again)


def test_an_archive_that_ends_too_early_is_refused(path):
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InfrastructureError, match="cannot be used"):
        read(path)

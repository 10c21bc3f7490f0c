"""Archives and paths of another kind than a reference says, and compressed or damaged ones."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from particle_os.base import container, lookup
from particle_os.base import docker_archive as docker_archives
from particle_os.errors import UsageError

from ...waiting import plenty
from .containers import LOWER, describe, tar
from .test_container_archives import docker_archive

CONFIG = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": []}}


@pytest.mark.parametrize(
    ("program", "unpacker", "ending"),
    [
        (["gzip"], "gunzip", "tar.gz"),
        (["gzip"], "gunzip", "tgz"),
        (["bzip2"], "bunzip2", "tar.bz2"),
        (["xz"], "unxz", "tar.xz"),
        (["zstd"], "unzstd", "tar.zst"),
        (["lz4"], "unlz4", "tar.lz4"),
    ],
)
def test_a_compressed_archive_that_skopeo_cannot_read_is_told(tmp_path, program, unpacker, ending):
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    image = {"Config": "a", "RepoTags": ["a:1"], "Layers": []}
    plain = tar(**{"manifest.json": json.dumps([image]).encode(), "a": json.dumps(CONFIG).encode()})
    saved = tmp_path / f"my saved.{ending}"
    packed = subprocess.run([*program, "-c"], input=plain, capture_output=True, check=True)
    saved.write_bytes(packed.stdout)
    with pytest.raises(UsageError, match="is compressed") as raised:
        docker_archives.explain(saved, ":a:1", plenty())
    assert f"write my saved-plain.tar in place of my saved.{ending}." in raised.value.hint
    command = raised.value.hint.split("`")[1]
    assert command.startswith(f"{unpacker} < ")
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "my saved-plain.tar").read_bytes() == plain


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"manifest.json": b"{}"}, "manifest.json is no list of images"),
        ({"manifest.json": b"[3]"}, "manifest.json is no list of images"),
        ({"a": None}, "it lacks the file a"),
        ({"a": b"{}"}, "a document is invalid: architecture is missing"),
        ({"a": b"[]"}, "a document is not a JSON object"),
        ({"a": b'{"architecture": [], "os": "", "rootfs": {"diff_ids": []}}'}, "is no string"),
        ({"a": b'{"architecture": null, "os": "linux"}'}, "rootfs is missing"),
    ],
)
def test_a_damaged_archive_of_docker_is_bad_input(tmp_path, files, message):
    image = {"Config": "a", "RepoTags": ["a:1"], "Layers": []}
    members = {"manifest.json": json.dumps([image]).encode(), "a": json.dumps(CONFIG).encode()}
    members = {k: v for k, v in {**members, **files}.items() if v is not None}
    saved = docker_archive(tmp_path / "saved.tar", **members)
    with pytest.raises(UsageError, match=message) as raised:
        describe(f"docker-archive:{saved}")
    assert raised.value.hint


def test_a_wrong_kind_of_path_is_told(layout, tmp_path):
    layout.name(layout.image(LOWER))
    (tmp_path / "f").write_bytes(b"x")
    for reference, message, hint in [
        (f"docker-archive:{layout.place}", "is a directory", "oci: in place of docker-archive:"),
        (f"oci-archive:{layout.place}", "is a directory", "oci: in place of oci-archive:"),
        (
            f"oci:{tmp_path}/f",
            "is no directory",
            "oci-archive: or docker-archive: in place of oci:",
        ),
        (f"oci:{tmp_path}/none", "does not exist", "Correct the path"),
    ]:
        with pytest.raises(UsageError, match=message) as raised:
            container.parse(reference, Path())
        assert hint in raised.value.hint
        assert ("exist" in raised.value.brief) == ("none" in reference)
    with pytest.raises(UsageError, match="is no file, but tar: needs"):
        lookup.resolve_file(f"tar:{layout.place}", Path(), "amd64")


def test_an_archive_of_an_image_is_no_root_file_system(layout, tmp_path):
    saved = docker_archive(tmp_path / "saved.tar", **{"manifest.json": b"[]"})
    with pytest.raises(UsageError, match="container image") as raised:
        lookup.resolve_file(f"tar:{saved}", Path(), "amd64")
    assert raised.value.hint == f"Write docker-archive:{saved}."

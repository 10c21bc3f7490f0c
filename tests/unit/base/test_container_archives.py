"""Archives of Docker and OCI, and indexes with several images."""

import errno
import json
import subprocess
from pathlib import Path

import pytest
from particle_os.base import container
from particle_os.base import layout as layouts
from particle_os.errors import InfrastructureError, NotEnoughSpace, UsageError

from ...image_layout import OCI, named
from ...waiting import plenty
from .containers import LOWER, UPPER, describe, tar


def platform(descriptor, architecture, variant=""):
    found = {"architecture": architecture, "os": "linux", "variant": variant}
    return {**descriptor, "platform": found}


def test_an_only_manifest_needs_no_platform_beside_what_it_attests(layout):
    image = layout.image(LOWER)
    about = {"vnd.docker.reference.digest": image["digest"]}
    unknown = {"architecture": "unknown", "os": "unknown"}
    statement = {**layout.image(UPPER), "annotations": about, "platform": unknown}
    found = describe(layout.name(layout.index([image, statement])))
    assert found.digest == image["digest"]


def test_an_index_of_an_index_leads_to_the_image(layout):
    image = platform(layout.image(LOWER), "amd64")
    other = platform(layout.image(UPPER, architecture="arm64"), "arm64")
    inner = layout.index([other, image])
    assert describe(layout.name(layout.index([inner]))).digest == image["digest"]


def test_indexes_without_an_end_are_refused(layout):
    index = layout.index([layout.image(LOWER)])
    for _ in range(container.INDEX_DEPTH):
        index = layout.index([index])
    with pytest.raises(UsageError, match="nested more than 4 deep"):
        describe(layout.name(index))


def test_the_index_file_itself_may_list_a_manifest_for_each_platform(layout):
    image = platform(layout.image(LOWER), "amd64")
    layout.write_index([platform(layout.image(UPPER, architecture="arm64"), "arm64"), image])
    assert describe(f"oci:{layout.place}").digest == image["digest"]


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_the_names_of_several_images_are_listed(layout, tmp_path, kind):
    first, second = layout.image(LOWER), layout.image(UPPER)
    layout.write_index([named(first, "one"), named(second, "two")])
    place = layout.place
    if kind == "oci-archive":
        place = tmp_path / "x.tar"
        subprocess.run(["tar", "-cf", place, "-C", layout.place, "."], check=True)
    assert describe(f"{kind}:{place}:two").digest == second["digest"]
    with pytest.raises(UsageError, match="holds several images; it has one, two"):
        describe(f"{kind}:{place}")
    with pytest.raises(UsageError, match="holds no image 'three'; it has one, two"):
        describe(f"{kind}:{place}:three")


def test_an_index_without_images_is_no_index_of_several(layout):
    layout.write_index([])
    with pytest.raises(UsageError, match=r"holds no image: its index\.json is empty"):
        describe(f"oci:{layout.place}")


def test_annotations_may_be_null(layout):
    image = {**layout.image(LOWER), "annotations": None}
    layout.write_index([image])
    assert describe(f"oci:{layout.place}").digest == image["digest"]


def docker_archive(place, **members):
    place.write_bytes(tar(**members))
    return place


def test_the_two_kinds_of_archives_are_told_apart(layout, tmp_path):
    saved = docker_archive(tmp_path / "saved.tar", **{"manifest.json": b"[]"})
    with pytest.raises(UsageError, match="archive of 'docker save'") as raised:
        describe(f"oci-archive:{saved}")
    assert raised.value.hint == "Write docker-archive: in place of oci-archive:."
    layout.name(layout.image(LOWER))
    subprocess.run(["tar", "-cf", tmp_path / "x.tar", "-C", layout.place, "."], check=True)
    with pytest.raises(UsageError, match="archive of an OCI image layout") as raised:
        describe(f"docker-archive:{tmp_path}/x.tar")
    assert raised.value.hint == "Write oci-archive: in place of docker-archive:."
    other = docker_archive(tmp_path / "other.tar", etc__hostname=b"x")
    with pytest.raises(UsageError, match="is no archive of 'docker save'"):
        describe(f"docker-archive:{other}")
    with pytest.raises(UsageError, match=r"no OCI image layout: it has no index\.json"):
        describe(f"oci-archive:{other}")


def test_the_names_in_an_archive_of_docker_are_listed(tmp_path):
    images = [{"Config": "a", "RepoTags": [name], "Layers": []} for name in ("a:1", "b:2")]
    saved = docker_archive(
        tmp_path / "saved.tar", **{"manifest.json": json.dumps(images).encode(), "a": b"{}"}
    )
    with pytest.raises(UsageError, match="holds several images; it has a:1, b:2") as raised:
        describe(f"docker-archive:{saved}")
    assert "docker-archive:PATH:NAME" in raised.value.hint
    with pytest.raises(UsageError, match="holds no image 'c:3'; it has a:1, b:2"):
        describe(f"docker-archive:{saved}:c:3")


@pytest.mark.parametrize(
    "selector",
    [
        "",
        ":debian",
        ":debian:latest",
        ":docker.io/library/debian:latest",
        ":me.example:5/x:1",
        ":@0",
    ],
)
def test_the_name_is_not_blamed_for_a_damaged_archive_of_docker(tmp_path, selector):
    """skopeo normalises names, and an image may have several."""
    image = {"Config": "gone", "RepoTags": ["debian:latest", "me.example:5/x:1"], "Layers": []}
    members = {"manifest.json": json.dumps([image]).encode()}
    saved = docker_archive(tmp_path / "saved.tar", **members)
    with pytest.raises(UsageError, match="it lacks the file gone") as raised:
        describe(f"docker-archive:{saved}{selector}")
    assert "holds" not in raised.value.brief


@pytest.mark.parametrize("text", ["{}", "[1]", '{"manifests": 3}', "{" * 100_000])
def test_a_layout_with_an_odd_index(layout, text):
    reference = layout.name(layout.image(LOWER))
    (layout.place / "index.json").write_text(text)
    with pytest.raises((UsageError, InfrastructureError)):
        describe(reference)


def test_a_huge_document(layout):
    reference = layout.name(layout.blob(b" " * (8 << 20), f"{OCI}manifest.v1+json"))
    with pytest.raises((UsageError, InfrastructureError), match=r"larger|more than|cannot be read"):
        describe(reference)


def test_an_archive_that_is_none(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"nothing" * 1000)
    for kind in ("oci-archive", "docker-archive"):
        with pytest.raises(UsageError, match="cannot be read") as raised:
            describe(f"{kind}:{tmp_path}/x.tar")
        assert "files are complete" in raised.value.hint


@pytest.mark.parametrize("step", ["mkdir", "open", "write"])
def test_a_full_disk_is_not_the_fault_of_an_archive(layout, tmp_path, monkeypatch, step):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    layout.name(layout.image(LOWER))
    subprocess.run(["tar", "-cf", tmp_path / "x.tar", "-C", layout.place, "."], check=True)
    found = layouts.Layout(tmp_path / "x.tar", True, "it", plenty())
    digest = "sha256:" + next((layout.place / "blobs/sha256").iterdir()).name
    size = (layout.place / "blobs/sha256" / digest[7:]).stat().st_size
    if step == "write":
        opened = Path.open
        monkeypatch.setattr(
            Path,
            "open",
            lambda path, *a, **o: opened(Path("/dev/full") if "wb" in a else path, *a, **o),
        )
    else:
        monkeypatch.setattr(Path, step, full)
    with pytest.raises(NotEnoughSpace, match="no space left in"):
        found._extract({digest: size}, tmp_path / "into")


def test_an_archive_that_ends_too_early_is_told_with_what_to_do(layout, tmp_path):
    layout.name(layout.image(LOWER))
    subprocess.run(["tar", "-cf", tmp_path / "x.tar", "-C", layout.place, "."], check=True)
    data = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(data[:700])
    found = layouts.Layout(tmp_path / "x.tar", True, "it", plenty())
    with pytest.raises(UsageError, match="it cannot be read") as raised:
        found._extract({f"sha256:{'0' * 64}": 1}, tmp_path / "into")
    assert "files are complete" in raised.value.hint

import errno
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_agent.unpack.unpack import unpack_image
from particle_os.base import container, layers, skopeo
from particle_os.base import layout as layouts
from particle_os.errors import InfrastructureError, NotEnoughSpace, UsageError
from particle_os.jobs import cache
from particle_os.system import host_packages, process
from particle_os.system.workspace import cache_directory, workspace

from ...image_layout import OCI, Layout, named
from ...waiting import plenty


def tar(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


LOWER, UPPER = tar(etc__a=b"a", etc__b=b"b"), tar(**{"etc__.wh.a": b"", "etc__c": b"c"})


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "layout")


def describe(reference, relative_to=Path()):
    return container.describe(reference, relative_to, "amd64", cache_directory())


@pytest.fixture
def fetch(soon):
    def fetch(reference):
        image = describe(reference)
        with workspace() as work:
            container.fetch(
                image, container.parse(reference, Path()), cache=cache_directory(), work=work,
                deadline=soon, log=print,
            )  # fmt: skip
        return image

    return fetch


def unpacked(image, place):
    place.mkdir()
    with layers.opened(image, cache_directory()) as stream:
        unpack_image(stream, place)
    return {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("docker://debian", ("//debian", "")),
        ("docker://debian:13-slim", ("//debian", ":13-slim")),
        ("docker://localhost:5000/a/b", ("//localhost:5000/a/b", "")),
        ("docker://[::1]:5000/a:b", ("//[::1]:5000/a", ":b")),
        ("docker://r.example.org/a@sha256:12", ("//r.example.org/a", "@sha256:12")),
    ],
)
def test_references_to_registries(reference, parts):
    source = container.parse(reference, Path())
    assert (source.name, source.selector) == parts
    assert str(source) == reference
    assert str(source.at("sha256:99")) == f"docker:{parts[0]}@sha256:99"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"])
def test_only_a_registry_of_this_host_may_be_without_tls(host):
    assert container.parse(f"docker://{host}/a:b", Path()).insecure


@pytest.mark.parametrize(
    "host", ["localhost.example.org", "10.0.0.1:5000", "127.example.org", "[::2]", "0.0.0.0", "1"]
)
def test_other_registries_need_it(host):
    assert not container.parse(f"docker://{host}/a:b", Path()).insecure
    assert not container.parse("docker://debian", Path()).insecure


def test_other_references_are_no_images():
    assert container.parse("tar:x.tar", Path()) is None
    assert container.parse("mmdebstrap:trixie", Path()) is None


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_files_that_do_not_exist_are_reported(kind, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        container.parse(f"{kind}:missing:tag", tmp_path)
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b/missing").touch()
    with pytest.raises(UsageError, match="colon"):
        container.parse(f"{kind}:missing", tmp_path / "a:b")


def test_a_layout_is_described_fetched_and_unpacked(layout, fetch, tmp_path):
    reference = layout.name(layout.image(LOWER, UPPER, config={"User": "nobody"}))
    image = describe(reference)
    assert image.config == {"User": "nobody"}
    assert not layers.is_fetched(image, cache_directory())
    assert fetch(reference) == image
    assert layers.is_fetched(image, cache_directory())
    assert unpacked(image, tmp_path / "root") == {"etc/b", "etc/c"}


def test_relative_paths_are_those_of_the_recipe(layout, tmp_path):
    layout.name(layout.image(LOWER))
    assert describe("oci:layout:base", tmp_path).size() > 0


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_archives(layout, fetch, tmp_path, kind):
    reference = layout.name(layout.image(LOWER, UPPER))
    archive = f"{kind}:{tmp_path}/image.tar:named/base:1"
    subprocess.run(["skopeo", "copy", "--quiet", reference, archive], check=True)
    assert unpacked(fetch(archive), tmp_path / "root") == {"etc/b", "etc/c"}
    same = describe(archive).digest == describe(reference).digest
    assert same == (kind == "oci-archive"), "a layout keeps the manifest as it is"


def test_of_an_index_the_right_image_is_taken(layout, fetch, tmp_path):
    wrong = layout.image(tar(etc__arm=b"arm"), architecture="arm64")
    right = layout.image(LOWER)
    platforms = [("arm64", wrong), ("amd64", right)]
    listed = [{**d, "platform": {"architecture": a, "os": "linux"}} for a, d in platforms]
    reference = layout.name(layout.index(listed))
    image = fetch(reference)
    assert image.digest == right["digest"]
    assert unpacked(image, tmp_path / "root") == {"etc/a", "etc/b"}
    archive = f"oci-archive:{tmp_path}/image.tar"
    argv = ["skopeo", "copy", "--quiet", "--all", reference, archive]
    subprocess.run(argv, check=True)
    assert describe(archive).digest == right["digest"]


@pytest.mark.parametrize("variants", [["v3", ""], ["v3", "v2"], ["", ""], ["v1", "v3"]])
@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_of_variants_the_one_that_is_described_is_fetched(layout, fetch, tmp_path, variants, kind):
    listed = []
    for number, variant in enumerate(variants):
        platform = {"architecture": "amd64", "os": "linux", "variant": variant}
        made = layout.image(tar(**{f"{variant}-{number}": b"x"}))
        listed.append({**made, "platform": platform})
    reference = layout.name(layout.index(listed))
    if kind == "oci-archive":
        with tarfile.open(tmp_path / "image.tar", "w") as archive:
            archive.add(layout.place, ".")
        reference = f"oci-archive:{tmp_path}/image.tar:base"
    lowest = min((variant, number) for number, variant in enumerate(variants))
    found = unpacked(fetch(reference), tmp_path / "root")
    assert found == {f"{lowest[0]}-{lowest[1]}"}


def test_an_image_of_another_architecture_is_refused(layout):
    reference = layout.name(layout.image(LOWER, architecture="arm64"))
    with pytest.raises(UsageError, match="is for arm64, but the recipe wants amd64"):
        describe(reference)


def test_layers_are_fetched_once(layout, fetch, tmp_path):
    fetch(layout.name(layout.image(LOWER)))
    reference = layout.name(layout.image(LOWER, UPPER))
    lower, upper = describe(reference).layers
    blobs = layout.place / "blobs/sha256"
    (blobs / lower.digest[7:]).unlink()
    image = fetch(reference)
    (blobs / upper.digest[7:]).unlink()
    assert unpacked(fetch(reference), tmp_path / "root") == {"etc/b", "etc/c"}
    assert image == describe(reference)


@pytest.mark.parametrize("which", ["manifest", "configuration"])
def test_a_document_with_another_digest_is_refused(layout, which):
    descriptor = layout.image(LOWER)
    path = layout.place / "blobs/sha256" / descriptor["digest"][7:]
    if which == "configuration":
        path = path.with_name(json.loads(path.read_text())["config"]["digest"][7:])
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UsageError, match="damaged"):
        describe(layout.name(descriptor))


def test_a_layer_with_another_digest_is_refused(layout, fetch):
    reference = layout.name(layout.image(LOWER))
    (layer,) = describe(reference).layers
    path = layout.place / "blobs/sha256" / layer.digest[7:]
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(InfrastructureError, match="cannot be fetched"):
        fetch(reference)
    assert not layers.is_fetched(describe(reference), cache_directory())


def test_a_layer_that_is_missing_is_reported(layout, fetch):
    reference = layout.name(layout.image(LOWER))
    (layer,) = describe(reference).layers
    (layout.place / "blobs/sha256" / layer.digest[7:]).unlink()
    with pytest.raises(InfrastructureError, match="cannot be fetched"):
        fetch(reference)


def test_what_was_damaged_in_the_cache_is_fetched_again(layout, fetch, tmp_path):
    reference = layout.name(layout.image(LOWER))
    image = fetch(reference)
    place = layers.blob(cache_directory() / "images", image.layers[0].digest)
    place.write_bytes(place.read_bytes()[::-1])
    assert place.name in {e.name for e in cache.damaged(cache_directory())}
    with layers.opened(image, cache_directory()) as stream:
        with pytest.raises(InfrastructureError, match="damaged and is now removed"):
            stream.read()
    fetch(reference)
    assert unpacked(image, tmp_path / "root") == {"etc/a", "etc/b"}


def test_a_damaged_layer_is_fetched_before_its_use(layout, fetch):
    reference = layout.name(layout.image(LOWER, UPPER))
    image = fetch(reference)
    place = layers.blob(cache_directory() / "images", image.layers[0].digest)
    place.write_bytes(place.read_bytes()[::-1])
    assert layers.is_fetched(image, cache_directory()), "the size is right"
    assert layers.drop_damaged(image, cache_directory())
    assert layers.missing_layers(image, cache_directory() / "images") == [image.layers[0]]
    assert not layers.drop_damaged(image, cache_directory())
    fetch(reference)
    assert layers.is_fetched(image, cache_directory())


def test_images_are_listed_and_pruned(layout, fetch):
    image = fetch(layout.name(layout.image(LOWER, UPPER)))
    listed = {e.name for e in cache.entries(cache_directory()) if e.kind == "image"}
    assert {layer.digest[7:] for layer in image.layers} | {image.digest[7:]} <= listed
    with workspace():
        assert cache.prune(cache_directory(), limit=0) == [], "a build may stand on them"
    cache.prune(cache_directory(), limit=0)
    assert not layers.is_fetched(image, cache_directory())


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
    with pytest.raises(UsageError, match="is not an image of a known kind"):
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
    assert raised.value.hint == "Write docker-archive:saved.tar."
    layout.name(layout.image(LOWER))
    subprocess.run(["tar", "-cf", tmp_path / "x.tar", "-C", layout.place, "."], check=True)
    with pytest.raises(UsageError, match="archive of an OCI image layout") as raised:
        describe(f"docker-archive:{tmp_path}/x.tar")
    assert raised.value.hint == "Write oci-archive:x.tar."
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
    with pytest.raises(InfrastructureError, match="cannot be read") as raised:
        describe(f"docker-archive:{saved}{selector}")
    assert "holds" not in raised.value.brief


@pytest.mark.parametrize(
    ("reference", "right"),
    [
        ("docker://Debian:13", "docker://debian:13"),
        ("docker://Registry.example:5000/My/App:V1", "docker://Registry.example:5000/my/app:V1"),
        ("docker://library/Debian", "docker://library/debian"),
        ("docker://Library/debian", "docker://library/debian"),
    ],
)
def test_a_repository_with_capital_letters_is_refused(reference, right):
    with pytest.raises(UsageError, match="no capital letters") as raised:
        container.parse(reference, Path())
    assert raised.value.hint == f"Write {right}."
    assert container.parse(right, Path()) is not None


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


def test_a_registry_that_does_not_answer():
    """Port 9 of the loopback interface refuses the connection."""
    with pytest.raises(InfrastructureError, match="connection refused") as raised:
        describe("docker://127.0.0.1:9/name:tag")
    assert "skopeo login" in raised.value.hint


def test_a_digest_that_is_known_needs_no_registry(layout, fetch):
    image = fetch(layout.name(layout.image(LOWER)))
    again = describe(f"docker://127.0.0.1:9/name@{image.digest}")
    assert again.layers == image.layers


def test_without_skopeo_it_is_said_what_to_install(layout, monkeypatch):
    reference = layout.name(layout.image(LOWER))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(InfrastructureError, match="need the program 'skopeo'") as raised:
        describe(reference)
    assert raised.value.hint == f"Install it: {host_packages.advice('skopeo')}."


def test_captured_output_is_bounded(soon):
    argv = ["head", "-c", "1000", "/dev/zero"]
    assert process.capture(argv, deadline=soon, what="it", limit=1000) == bytes(1000)
    with pytest.raises(InfrastructureError, match="more than 999 bytes"):
        process.capture(argv, deadline=soon, what="it", limit=999)
    with pytest.raises(InfrastructureError, match="it failed") as raised:
        process.capture(["ls", "/no/such"], deadline=soon, what="it", limit=9)
    assert "/no/such" in raised.value.tail[0]


def test_no_layer_stays_open_after_its_end(layout, fetch, monkeypatch):
    opened = []

    def open_regular(place):
        opened.append(place.open("rb"))
        return opened[-1]

    image = fetch(layout.name(layout.image(LOWER, UPPER)))
    place = layers.blob(cache_directory() / "images", image.layers[0].digest)
    assert place.parent.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(layers, "open_regular", open_regular)
    stream = layers.opened(image, cache_directory())
    stream.read()
    assert [file.closed for file in opened] == [True, True]
    stream.close()
    assert stream.closed


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


def test_the_program_that_reads_registries_is_confined(tmp_path):
    within = skopeo.confinement(SimpleNamespace(path=tmp_path), [tmp_path / "a"], tmp_path / "b")
    assert within.memory == skopeo.MEMORY
    assert within.writes == (tmp_path, tmp_path / "b")
    assert tmp_path / "a" in within.reads
    assert Path.home() not in within.reads

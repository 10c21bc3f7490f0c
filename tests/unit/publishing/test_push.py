"""The content that `push` stores in a registry, and the images that it refuses."""

import hashlib
import io
import json
import os
import subprocess
import tarfile

import pytest

from ...registry import Small, serving
from .conftest import Client, Published, sha256

CONFIG = "application/vnd.oci.image.config.v1+json"


def manifest(known, reference):
    kind, content = known.manifests[reference]
    return kind, json.loads(content)


def unpacked(known, layer):
    data = known.blobs[layer["digest"].removeprefix("sha256:")]
    assert layer["size"] == len(data)
    return subprocess.run(["zstd", "-dc"], input=data, check=True, stdout=-1).stdout


def members(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [(m, tar.extractfile(m).read() if m.isreg() else None) for m in tar]


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
def test_a_containerdisk_is_what_kubevirt_documents(client, known, tmp_path, kind):
    """One layer with one disk in /disk, which the user 107 can read, and nothing else."""
    built = Published(tmp_path / "build").build(kind)
    shown = client.push(built.file(kind), client.place)
    _, found = manifest(known, "1")
    assert found["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert "artifactType" not in found
    (layer,) = found["layers"]
    archive = unpacked(known, layer)
    (folder, _), (disk, content) = members(archive)
    assert (folder.name, folder.isdir(), folder.size) == ("disk", True, 0)
    assert disk.name == f"disk/server.{kind}"
    assert content == built.file(kind).read_bytes()
    for member in (folder, disk):
        assert (member.uid, member.gid, member.mtime) == (107, 107, 0)
    assert (folder.mode, disk.mode) == (0o555, 0o440)
    assert found["config"]["mediaType"] == CONFIG
    config = json.loads(known.blobs[found["config"]["digest"].removeprefix("sha256:")])
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    diff_id = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    assert config["rootfs"] == {"type": "layers", "diff_ids": [diff_id]}
    assert config["created"] == "2001-09-09T01:46:40Z", "the time of the build, not of the upload"
    assert shown["digest"] == shown["forms"]["containerdisk"]


def test_the_same_image_gets_the_same_digest(client, published, tmp_path):
    digests = set()
    for _ in range(2):
        with serving(Small()) as host:
            shown = Client(host, tmp_path).push(published.file("qcow2"), client.place.replace(
                client.host, host))  # fmt: skip
            digests.add(shown["digest"])
    assert len(digests) == 1


@pytest.mark.parametrize("kind", ["qcow2", "raw", "raw.zst", "vmdk"])
def test_the_layer_of_an_artifact_is_the_published_file(client, known, tmp_path, kind):
    built = Published(tmp_path / "build").build(kind)
    client.push(built.file(kind), client.place, "--as", "artifact")
    _, found = manifest(known, "1")
    assert found["artifactType"] == "application/vnd.particle-os.disk.v1"
    (layer,) = found["layers"]
    assert layer["digest"] == f"sha256:{sha256(built.file(kind))}"
    assert layer["mediaType"] == f"{found['artifactType']}.{kind.replace('.zst', '+zstd')}"
    assert layer["annotations"] == {"org.opencontainers.image.title": f"server.{kind}"}
    notes = found["annotations"]
    assert notes["org.opencontainers.image.title"] == "server"
    assert notes["vnd.particle-os.format"] == kind.partition(".")[0]
    assert notes["vnd.particle-os.architecture"] == "amd64"
    assert known.blobs[sha256(built.file(kind))] == built.file(kind).read_bytes()


def test_both_forms_are_under_one_tag(client, known, published):
    shown = client.push(published.file("qcow2"), client.place, "--as", "both")
    kind, index = manifest(known, "1")
    assert kind == index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    disk, artifact = index["manifests"]
    assert disk["platform"] == {"architecture": "amd64", "os": "linux"}
    assert artifact["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert artifact["artifactType"] == "application/vnd.particle-os.disk.v1"
    forms = {"containerdisk": disk["digest"], "artifact": artifact["digest"]}
    assert shown["forms"] == forms
    assert set(forms.values()) < set(known.manifests)


@pytest.mark.parametrize("lists", [True, False], ids=["OCI 1.1", "an older registry"])
@pytest.mark.parametrize("way", ["containerdisk", "artifact"])
def test_result_and_report_are_attached(tmp_path, published, lists, way):
    known = Small(lists=lists)
    with serving(known) as host:
        client = Client(host, tmp_path)
        for _ in range(2):
            shown = client.push(published.file("qcow2"), client.place, "--as", way)
    subject = shown["digest"]
    attached = [manifest(known, digest)[1] for digest in shown["attached"]]
    assert [each["subject"]["digest"] for each in attached] == [subject] * 2
    contents = {
        each["artifactType"]: known.blobs[each["layers"][0]["digest"].removeprefix("sha256:")]
        for each in attached
    }
    assert contents == {
        "application/vnd.particle-os.result.v1": published.file("result.json").read_bytes(),
        "application/vnd.particle-os.report.v1": published.file("report.html").read_bytes(),
    }
    tag = subject.replace(":", "-")
    assert (tag in known.manifests) is not lists
    if not lists:
        kind, index = manifest(known, tag)
        assert kind == "application/vnd.oci.image.index.v1+json"
        listed = {each["digest"]: each["artifactType"] for each in index["manifests"]}
        assert listed == dict(zip(shown["attached"], contents, strict=True))
        assert all(each["size"] > 0 for each in index["manifests"])


def test_others_on_the_list_of_an_older_registry_stay(tmp_path, published):
    known = Small(lists=False)
    with serving(known) as host:
        client = Client(host, tmp_path)
        digest = client.push(published.file("qcow2"), client.place)["digest"]
        tag = digest.replace(":", "-")
        kind, index = manifest(known, tag)
        other = {**index["manifests"][0], "digest": f"sha256:{'ab' * 32}", "artifactType": "x/y"}
        content = json.dumps({**index, "manifests": [other]}).encode()
        known.manifests[tag] = (kind, content)
        client.push(published.file("qcow2"), client.place)
    digests = [each["digest"] for each in manifest(known, tag)[1]["manifests"]]
    assert digests[0] == other["digest"]
    assert len(digests) == 3


def test_the_tag_comes_last(client, known, published):
    client.push(published.file("qcow2"), client.place)
    written = [what for verb, what in known.asked if verb == "PUT"]
    assert written[-1] == "manifests/1"
    assert written.count("manifests/1") == 1


def test_what_is_there_is_not_sent_again(client, known, published):
    first = client.push(published.file("qcow2"), client.place)
    again = client.push(published.file("qcow2"), client.place.replace(":1", ":2"))
    assert again["digest"] == first["digest"]
    assert (first["sent"] > 0, again["sent"]) == (True, 0)
    assert len(known.sent) == len(set(known.sent))


def test_the_name_of_a_recipe_finds_its_image(client, known, tmp_path):
    """KubeVirt takes qcow2 and raw only; an artifact prefers what is small."""
    built = Published(tmp_path / "build").build("vmdk", "raw", "qcow2")
    words = ["server", client.place, "-o", built.out]
    assert client.push(*words)["image"] == str(built.file("qcow2"))
    built.file("qcow2").unlink()
    assert client.push(*words)["image"] == str(built.file("raw"))
    built.file("raw").unlink()
    assert client.push(*words, "--as", "artifact")["image"] == str(built.file("vmdk"))
    assert "KubeVirt takes no disk of this kind" in client.push(*words, status=2)["error"]
    built.file("vmdk").unlink()
    assert "has no image" in client.push(*words, status=2)["error"]


@pytest.mark.parametrize("name", ["nothing", "../server", "build/server", ".", "server.result"])
def test_another_name_is_refused(client, known, tmp_path, name, monkeypatch):
    built = Published(tmp_path / "build").build("qcow2")
    monkeypatch.chdir(tmp_path)
    client.push(name, client.place, "-o", built.out, status=2)
    assert known.asked == []


def changed(built):
    path = built.file("qcow2")
    path.write_bytes(path.read_bytes() + bytes(512))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda built: built.build("qcow2", status="not-tested"), "its status is 'not-tested'"),
        (lambda built: built.build("qcow2", status="not-booted"), "its status is 'not-booted'"),
        (changed, "has changed since it was built"),
        (lambda built: built.file("result.json").unlink(), "has no result of a build"),
        (lambda built: built.file("result.json").write_text("{}"), "has no result of a build"),
    ],
)
def test_what_has_not_passed_its_boot_test_is_refused(client, known, published, spoil, why):
    spoil(published)
    error = client.push(published.file("qcow2"), client.place, status=4)
    assert why in error["error"]
    assert "--untested" in error["hint"]
    assert known.asked == [], "nothing was sent"
    named = () if "status" in why else ("--architecture", "amd64")
    shown = client.push(published.file("qcow2"), client.place, "--untested", *named)
    assert "1" in known.manifests
    if "status" not in why:
        assert shown["attached"] == [], "a result about other bytes is not attached"


def linked(place, to):
    place.unlink()
    place.symlink_to(to)


def grown(place, to):
    with place.open("r+b") as file:
        file.truncate(65 << 20)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (linked, "a symbolic link"),
        (lambda place, to: (place.unlink(), os.mkfifo(place)), "not a regular file"),
        (lambda place, to: place.write_bytes(to.read_bytes()), "not a report"),
        (grown, "larger than"),
    ],
)
def test_no_other_file_is_pushed_as_the_report(client, known, published, tmp_path, spoil, why):
    """A link in the directory, planted by others, could lead to any file of the user's."""
    secret = tmp_path / "id_ed25519"
    secret.write_text("the private key")
    spoil(published.file("report.html"), secret)
    error = client.push(published.file("qcow2"), client.place, status=2)
    assert why in error["error"] and "server.report.html" in error["error"]
    assert known.asked == [], "nothing was sent"


def test_no_other_file_is_pushed_as_the_result(client, known, published, tmp_path):
    """Another result, which a link names, is not that of the build beside it."""
    elsewhere = published.file("result.json").rename(tmp_path / "elsewhere.json")
    published.file("result.json").symlink_to(elsewhere)
    error = client.push(published.file("qcow2"), client.place, status=4)
    assert "has no result of a build" in error["error"]
    client.push("server", client.place, "-o", published.out, status=2)
    assert known.asked == []


@pytest.mark.parametrize("name", ["server.qcow2", "../id_ed25519", "/{place}/id_ed25519"])
def test_a_result_names_no_file_outside_of_its_directory(client, known, published, tmp_path, name):
    secret = tmp_path / "id_ed25519"
    published.file("qcow2").rename(secret)
    published.file("qcow2").symlink_to(secret)
    found = json.loads(published.file("result.json").read_text())
    found["artifacts"][0]["path"] = name.format(place=tmp_path)
    published.file("result.json").write_text(json.dumps(found))
    words = ["server", client.place, "-o", published.out, "--untested"]
    assert "has no image" in client.push(*words, status=2)["error"]
    assert known.asked == []


def test_a_disk_that_changes_while_it_is_packed_is_noticed(client, known, published, monkeypatch):
    from particle_os.publishing import containerdisk

    real = containerdisk.open_regular

    def late(path):
        changed(published)
        path.write_bytes(b"x" * path.stat().st_size)
        return real(path)

    monkeypatch.setattr(containerdisk, "open_regular", late)
    error = client.push(published.file("qcow2"), client.place, status=5)
    assert "has changed while it was packed" in error["error"]
    assert "1" not in known.manifests


@pytest.mark.parametrize(
    "place",
    ["docker://x/y", "oci://registry.example.org/x", f"docker://127.0.0.1/x@sha256:{'ab' * 32}"],
)
def test_a_wrong_target_is_told_before_anything_is_read(client, published, place):
    error = client.push(published.file("qcow2"), place, status=2)
    assert place in error["error"]


@pytest.mark.parametrize("status", [401, 403, 404, 418, 500, 429])
def test_a_registry_that_refuses_is_told(tmp_path, published, status):
    with serving(lambda handler: handler.say(status)) as host:
        client = Client(host, tmp_path)
        error = client.push(published.file("qcow2"), client.place, status=5)
    assert f"docker://{host}/team/server:1 cannot be pushed" in error["error"]


def test_an_image_with_a_parent_is_refused(client, known, tmp_path):
    base, image = tmp_path / "base.qcow2", tmp_path / "x.qcow2"
    for words in (["create", "-q", "-f", "qcow2", base, "1M"],
                  ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, image]):  # fmt: skip
        subprocess.run(["qemu-img", *words], check=True)
    error = client.push(image, client.place, "--untested", status=2)
    assert "refers to another file" in error["error"]
    assert known.asked == []


def test_an_image_without_a_result_needs_its_architecture(client, known, published):
    """A cluster of other machines would take an image that is labelled for them."""
    published.file("result.json").unlink()
    image = published.file("qcow2")
    error = client.push(image, client.place, "--untested", status=2)
    assert "nothing says which architecture" in error["error"]
    assert "--architecture" in error["hint"]
    assert known.asked == [], "nothing was sent"
    client.push(image, client.place, "--untested", "--architecture", "arm64")
    config = manifest(known, "1")[1]["config"]["digest"].removeprefix("sha256:")
    assert json.loads(known.blobs[config])["architecture"] == "arm64"


def test_an_architecture_that_the_result_contradicts_is_refused(client, known, published):
    image = published.file("qcow2")
    error = client.push(image, client.place, "--architecture", "arm64", status=2)
    assert "is for amd64, not for arm64" in error["error"]
    assert known.asked == []

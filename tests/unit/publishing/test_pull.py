"""`pull` brings back what was pushed, or what KubeVirt takes, and believes no registry."""

import gzip
import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from particle_os.publishing import pulled_result

from ...registry import INDEX, Small, serving
from ...registry import sha256 as digest_of
from .conftest import MIB, Client, Published
from .foreign import DISK, TAR, Foreign, artifact, packed, special


@pytest.mark.parametrize("lists", [True, False], ids=["OCI 1.1", "an older registry"])
@pytest.mark.parametrize(
    ("kind", "way"),
    [("qcow2", "containerdisk"), ("raw", "containerdisk"), ("qcow2", "artifact"),
     ("raw.zst", "artifact"), ("vmdk", "artifact"), ("qcow2", "both")],
)  # fmt: skip
def test_what_was_pushed_comes_back(tmp_path, kind, way, lists):
    built = Published(tmp_path / "build").build(kind)
    with serving(Small(lists=lists)) as host:
        client = Client(host, tmp_path)
        pushed = client.push(built.file(kind), client.place, "--as", way)
        shown = client.pull()
    out = tmp_path / "pulled"
    names = [f"server.{kind}", "server.report.html", "server.result.json"]
    found = {path.name for path in out.iterdir()}
    assert found == {"SHA256SUMS", "server.pulled.json", *names}
    for name in names:
        assert (out / name).read_bytes() == (built.out / name).read_bytes()
    assert shown["status"] == "passed"
    assert shown["path"] == str(out / f"server.{kind}")
    assert shown["reference"].rpartition("@")[2] in pushed["forms"].values()
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=out).returncode == 0


def test_a_pulled_image_can_be_pushed_again(client, published):
    first = client.push(published.file("qcow2"), client.place)
    client.pull()
    again = client.push("server", client.place, "-o", client.directory / "pulled")
    assert again["digest"] == first["digest"]


def test_holes_stay_holes(client, tmp_path):
    built = Published(tmp_path / "build").build("raw")
    client.push(built.file("raw"), client.place)
    found = client.pull()
    assert Path(found["path"]).stat().st_blocks * 512 < 2 * MIB


def test_a_digest_names_the_same_image_for_ever(client, published):
    first = client.push(published.file("qcow2"), client.place)["digest"]
    before = published.file("qcow2").read_bytes()
    published.build("qcow2", text=b"another system")
    client.push(published.file("qcow2"), client.place)
    found = client.pull(reference=client.place.replace(":1", f"@{first}"))
    assert Path(found["path"]).read_bytes() == before


def test_a_newer_image_replaces_the_set_of_the_older_one(client, tmp_path):
    """The images of an earlier build are no part of the set; other files stay."""
    built = Published(tmp_path / "build").build("raw", "qcow2")
    client.push(built.file("raw"), client.place)
    client.pull()
    (tmp_path / "pulled/other.qcow2").write_text("mine")
    client.push(built.file("qcow2"), client.place)
    client.pull()
    names = {path.name for path in (tmp_path / "pulled").iterdir()}
    assert "server.raw" not in names
    assert {"server.qcow2", "other.qcow2"} < names


@pytest.fixture
def other(client, tmp_path):
    """The reference to an image whose result calls it `server`, in the repository of another."""
    place = client.place.replace("team/server", "evil/x")
    built = Published(tmp_path / "evil").build("qcow2", text=b"another system")
    client.push(built.file("qcow2"), place, "--as", "artifact")
    return place


def mine(tmp_path, names=("server.qcow2", "server.raw", "server.report.html", "server.log")):
    out = tmp_path / "pulled"
    out.mkdir(exist_ok=True)
    for name in names:
        (out / name).write_text("precious")
    return out


def test_the_reference_names_the_files_and_not_what_the_registry_says(client, other, tmp_path):
    out = mine(tmp_path)
    found = client.pull(reference=other)
    assert Path(found["path"]) == out / "x.qcow2" and Path(found["result"]).name == "x.result.json"
    assert (out / "server.qcow2").read_text() == (out / "server.report.html").read_text()


def test_files_of_the_same_name_from_elsewhere_stay(client, published, tmp_path):
    client.push(published.file("qcow2"), client.place)
    out = mine(tmp_path)
    error = client.pull(status=2)
    assert "not from docker://" in error["error"] and "--force" in error["hint"]
    assert {path.read_text() for path in out.iterdir()} == {"precious"}
    found = client.pull("--name", "copy")
    assert Path(found["path"]).name == "copy.qcow2"
    assert (out / "server.qcow2").read_text() == "precious"


@pytest.mark.parametrize("name", ["server.qcow2", "server.report.html", "server.result.json"])
def test_one_file_of_the_name_is_enough_to_stop(client, published, tmp_path, name):
    client.push(published.file("qcow2"), client.place)
    out = mine(tmp_path, [name])
    client.pull(status=2)
    assert [path.name for path in out.iterdir()] == [name]


def test_with_force_nothing_of_the_older_set_is_left(client, foreign, tmp_path):
    foreign.image(packed(("disk/x", DISK)))
    out = mine(tmp_path, ["server.report.html", "server.result.json", "server.log"])
    (out / "server.evidence").mkdir()
    client.pull("--force")
    assert sorted(path.name for path in out.iterdir()) == [
        "SHA256SUMS", "server.pulled.json", "server.raw",
    ]  # fmt: skip


def test_a_set_that_was_built_since_is_not_replaced(client, published, tmp_path):
    client.push(published.file("qcow2"), client.place)
    client.pull()
    sums = tmp_path / "pulled/SHA256SUMS"
    sums.write_text(sums.read_text().replace(sums.read_text()[:8], "00000000"))
    assert "not from docker://" in client.pull(status=2)["error"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a.qcow2", "A", "-x"])
def test_a_name_is_that_of_an_image(client, published, name):
    client.push(published.file("qcow2"), client.place)
    if name:
        assert "is no name for an image" in client.pull("--name", name, status=2)["error"]
    else:
        assert Path(client.pull("--name", name)["path"]).name == "server.qcow2"


def test_a_broken_transfer_continues(client, known, published, monkeypatch):
    client.push(published.file("qcow2"), client.place, "--as", "artifact")
    known.cuts = [0, 0, 5000, 100000]
    known.given = 0
    client.pull()
    assert known.cuts == []


@pytest.fixture
def foreign(known):
    return Foreign(known)


@pytest.mark.parametrize(
    ("kind", "compress"), [(f"{TAR}+gzip", gzip.compress), (TAR, lambda data: data)]
)
@pytest.mark.parametrize("name", ["disk/disk.img", "./disk/x", "/disk/../../x.raw", "disk/a/b"])
def test_a_containerdisk_of_others_comes_under_the_name_of_its_repository(
    client, foreign, tmp_path, kind, compress, name
):
    """Whatever the archive calls it."""
    foreign.image(packed(("etc/passwd", b"x"), (name, DISK), compress=compress), kind=kind)
    shown = client.pull()
    assert shown["status"] is None
    assert shown["sha256"] == digest_of(DISK)
    assert sorted(path.name for path in (tmp_path / "pulled").rglob("*")) == [
        "SHA256SUMS", "server.pulled.json", "server.raw",
    ]  # fmt: skip
    assert [*tmp_path.rglob("x.raw")] == []
    assert (tmp_path / "pulled/server.raw").read_bytes() == DISK


def test_the_upper_layer_of_a_containerdisk_counts(client, foreign):
    foreign.image(packed(("disk/x", b"lower" * 1000)), packed(("disk/x", DISK)))
    assert client.pull()["sha256"] == digest_of(DISK)
    foreign.image(packed(("disk/x", DISK)), packed(("etc/x", b"")))
    assert client.pull()["sha256"] == digest_of(DISK)


BACKED = b"QFI\xfb\0\0\0\3" + (512).to_bytes(8, "big") + bytes(1 << 16)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (packed(("disk/a", DISK), ("disk/b", DISK)), "several files"),
        (packed(("etc/os-release", b"x")), "without a disk in /disk"),
        (packed(special("disk/x", tarfile.SYMTYPE, "/etc/passwd")), "without a disk"),
        (packed(special("disk/x", tarfile.LNKTYPE, "etc/passwd")), "without a disk"),
        (packed(special("disk/x", tarfile.CHRTYPE)), "without a disk"),
        (packed(special("disk", tarfile.SYMTYPE, "/etc")), "without a disk"),
        (packed(("disk/x", b"")), "is empty"),
        (packed(("disk/x", BACKED)), "refers to another file"),
        (packed(("disk/x", b"conectix" + DISK)), "of the format vhd"),
        (packed(("disk/x", DISK))[:-900], "damaged layer"),
        (b"no archive", "damaged layer"),
        (b"", "damaged layer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "layer",
)
def test_what_is_no_containerdisk_is_refused(client, foreign, tmp_path, layer, why):
    foreign.image(layer)
    error = client.pull(status=5 if "damaged" in why else 2)
    assert why in error["error"]
    assert list((tmp_path / "pulled").iterdir()) == []


def test_an_archive_that_unpacks_to_too_many_bytes_is_refused(client, foreign, monkeypatch):
    monkeypatch.setattr("particle_os.publishing.pulled_disk.DISK_LIMIT", 1 << 16)
    foreign.image(packed(("disk/x", bytes(1 << 20))))
    assert "damaged layer" in client.pull(status=5)["error"]


@pytest.mark.parametrize("title", ["../../x", "/etc/passwd", "a\0b", "SHA256SUMS", "", "x\x1b[2J"])
def test_no_name_of_the_registry_becomes_the_name_of_a_file(client, foreign, tmp_path, title):
    artifact(foreign, title=title)
    assert client.pull()["path"] == str(tmp_path / "pulled/server.raw")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "iso"}, "no disk of a known kind"),
        ({"layers": []}, "no disk of a known kind"),
        ({"artifactType": "application/vnd.example.chart"}, "is no disk, but application/vnd.exa"),
        ({"data": BACKED, "kind": "qcow2"}, "refers to another file"),
        ({"data": BACKED}, "has the format qcow2, and not raw|refers to another file"),
        ({"kind": "qcow2"}, "has the format raw, and not qcow2"),
        ({"kind": "vmdk"}, "not an image of the format vmdk"),
    ],
)
def test_an_artifact_that_is_no_disk_is_refused(client, foreign, tmp_path, changes, why):
    artifact(foreign, **changes)
    assert re.search(why, client.pull(status=2)["error"])
    assert list((tmp_path / "pulled").iterdir()) == []


def replaced(known, before, after):
    known.blobs[digest_of(before)] = after


@pytest.mark.parametrize("after", [DISK[:-1] + b"x", DISK + b"x", DISK[:-1], b""])
def test_a_registry_that_lies_about_a_disk_is_noticed(client, foreign, known, tmp_path, after):
    artifact(foreign)
    replaced(known, DISK, after)
    assert "cannot be pulled" in client.pull(status=5)["error"]
    assert list((tmp_path / "pulled").iterdir()) == []


def test_a_registry_that_lies_about_a_manifest_is_noticed(client, foreign, known):
    digest = artifact(foreign)["digest"]
    kind, content = known.manifests[digest]
    known.manifests[digest] = (kind, content + b" ")
    error = client.pull(reference=client.place.replace(":1", f"@{digest}"), status=5)
    assert "a manifest has another digest" in error["error"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"[" * 100000, b'{"layers": [{}]}', b"\xff", b"null", b'{"config": 1}',
     b'{"config": {"mediaType": "x", "digest": "sha256:..", "size": 1}, "layers": []}'],
)  # fmt: skip
def test_a_malformed_manifest_is_refused(client, foreign, content):
    foreign.put(content)
    assert client.place in client.pull(status=2)["error"]


def test_a_missing_image_is_told(client):
    assert "does not exist" in client.pull(status=2)["error"]


def test_of_several_disks_the_user_chooses(client, foreign):
    one = foreign.image(packed(("disk/x", DISK)), tag="one")
    other = foreign.image(packed(("disk/x", DISK + b"1")), tag="other")
    listed = [
        {**each, "platform": {"architecture": name, "os": "linux"}}
        for each, name in ((one, "amd64"), (other, "arm64"))
    ]
    foreign.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}, kind=INDEX)
    error = client.pull(status=2)
    assert "several disks: amd64" in error["error"]
    assert one["digest"] in error["hint"]
    foreign.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed[:1]}, kind=INDEX)
    assert client.pull()["sha256"] == digest_of(DISK)
    foreign.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}, kind=INDEX)
    assert "names no disk" in client.pull(status=2)["error"]


def forged(published, change):
    data = json.loads(published.file("result.json").read_text())
    change(data)
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["artifacts"][0].update(sha256="ab" * 32),
        lambda data: data["artifacts"][0].update(path="../../x.qcow2"),
        lambda data: data["artifacts"][0].update(path="other.qcow2"),
        lambda data: data.update(recipe="../../x"),
        lambda data: data.update(recipe="a/b"),
        lambda data: data.update(recipe=""),
        lambda data: data.update(more=1),
        lambda data: data.clear(),
    ],
)
def test_a_result_about_another_disk_is_refused(client, known, published, tmp_path, change):
    foreign = Foreign(known)
    data = published.file("qcow2").read_bytes()
    subject = artifact(foreign, data, "qcow2")
    foreign.attach(subject, "result", forged(published, change))
    error = client.pull(status=5)
    assert "is not about the disk" in error["error"]
    assert list((tmp_path / "pulled").iterdir()) == []
    # A right one beside it counts.
    foreign.attach(subject, "result", published.file("result.json").read_bytes())
    assert client.pull()["status"] == "passed"


def test_the_newest_result_of_a_disk_counts(client, known, published):
    foreign = Foreign(known)
    subject = artifact(foreign, published.file("qcow2").read_bytes(), "qcow2")
    for created, status in ((1.0, "not-tested"), (3.0, "passed"), (2.0, "not-tested")):
        data = forged(published, lambda d, c=created, s=status: d.update(created=c, status=s))
        foreign.attach(subject, "result", data)
    assert client.pull()["status"] == "passed"


def test_a_report_that_could_run_scripts_is_left_out(client, known, published, tmp_path):
    foreign = Foreign(known)
    subject = artifact(foreign, published.file("qcow2").read_bytes(), "qcow2")
    foreign.attach(subject, "result", published.file("result.json").read_bytes())
    foreign.attach(subject, "report", b"<html><script>alert(1)</script></html>")
    assert client.pull()["report"] is None
    assert not (tmp_path / "pulled/server.report.html").exists()
    foreign.attach(subject, "report", published.file("report.html").read_bytes())
    assert client.pull()["report"] == str(tmp_path / "pulled/server.report.html")


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100000, b"[]", b'{"manifests": 5}', b'{"manifests": [5, {}]}']
)
def test_a_malformed_list_of_referrers_has_none(tmp_path, content):
    known = Small(lists=False)
    subject = artifact(Foreign(known))
    known.manifests[subject["digest"].replace(":", "-")] = (INDEX, content)
    with serving(known) as host:
        assert Client(host, tmp_path).pull()["status"] is None


def test_a_long_list_of_referrers_costs_a_bounded_work(client, known, published, monkeypatch):
    monkeypatch.setattr(pulled_result, "ATTACHED", 3)
    foreign = Foreign(known)
    subject = artifact(foreign, published.file("qcow2").read_bytes(), "qcow2")
    for number in range(10):
        foreign.attach(subject, "result", b"%d" % number)
    client.pull(status=5)
    assert sum(what.startswith("manifests/sha256:") for verb, what in known.asked) == 3

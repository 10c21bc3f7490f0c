import json

import pytest
from particle_os.base import oci
from particle_os.errors import UsageError

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
HEX = "sha256:" + "5" * 64


def descriptor(kind, **changes):
    return {"mediaType": kind, "digest": HEX, "size": 10, **changes}


def manifest(**changes):
    value = {
        "schemaVersion": 2,
        "config": descriptor(f"{OCI}config.v1+json"),
        "layers": [descriptor(f"{OCI}layer.v1.tar+gzip")],
        **changes,
    }
    return json.dumps(value).encode()


def configuration(**changes):
    value = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [HEX]}, **changes}
    return json.dumps(value).encode()


def layers(*kinds):
    return {"layers": [descriptor(kind) for kind in kinds]}


@pytest.mark.parametrize("kind", sorted(oci.LAYERS))
def test_layers_of_all_known_kinds(kind):
    found = oci.read_manifest(manifest(**layers(kind)), "it")
    assert [layer.digest for layer in found.layers] == [HEX]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schemaVersion": 1}, "schema 1"),
        (
            {"mediaType": f"{DOCKER}distribution.manifest.v1+json"},
            "not an image of a known kind",
        ),
        ({"mediaType": f"{OCI}index.v1+json"}, "not an image of a known kind"),
        ({"mediaType": ["x"]}, "not an image of a known kind"),
        ({"layers": []}, "0 layers"),
        (layers(*[f"{OCI}layer.v1.tar"] * 1001), "layers has 1001 items"),
        (layers(f"{OCI}layer.nondistributable.v1.tar+gzip"), "foreign layer"),
        (layers(f"{DOCKER}image.rootfs.foreign.diff.tar.gzip"), "foreign layer"),
        (layers(f"{OCI}layer.v1.tar+gzip+encrypted"), r"unknown kind: '.*encrypted'"),
        ({"config": descriptor("application/vnd.oci.empty.v1+json")}, "not a system but"),
        ({"config": descriptor(f"{OCI}config.v1+json", size=1 << 30)}, "configuration of"),
        ({"config": descriptor(f"{OCI}config.v1+json", size="10")}, "config.size"),
        ({"config": descriptor(f"{OCI}config.v1+json", size=-1)}, "config.size"),
        ({"config": descriptor(f"{OCI}config.v1+json", digest="sha256:../../etc")}, "digest"),
        ({"config": descriptor(f"{OCI}config.v1+json", digest=HEX.upper())}, "digest"),
        ({"config": descriptor(f"{OCI}config.v1+json", digest=f"{HEX}\n")}, "digest"),
        ({"config": None}, "config"),
        ({"layers": {}}, "layers"),
    ],
)
def test_manifests_that_cannot_be_unpacked_are_reported_why(changes, words):
    with pytest.raises(UsageError, match=words):
        oci.read_manifest(manifest(**changes), "it")


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"null", b"\xff\xfe", b"{" * 100_000, b"[" * 100_000, b" " * (5 << 20)],
    ids=["empty", "list", "null", "bytes", "braces", "brackets", "large"],
)
def test_bytes_that_are_no_document_are_reported(document):
    for read in (oci.read_manifest, oci.read_index):
        with pytest.raises(UsageError, match="it: a document "):
            read(document, "it")


def test_a_control_character_does_not_reach_the_terminal():
    with pytest.raises(UsageError) as raised:
        oci.read_manifest(manifest(**layers("\x1b[31m")), "it")
    assert "\x1b" not in raised.value.brief


def entry(architecture, system="linux", **changes):
    platform = {"architecture": architecture, "os": system}
    return descriptor(f"{OCI}manifest.v1+json", platform=platform, **changes)


def index(*entries):
    return oci.read_index(json.dumps({"manifests": entries}).encode(), "it")


def test_the_manifest_of_the_wanted_architecture_is_chosen():
    other = "sha256:" + "6" * 64
    found = index(
        entry("unknown", "unknown"),
        entry("amd64", "windows"),
        entry("arm64"),
        entry("amd64", digest=other),
        entry("amd64"),
    )
    assert oci.choose(found, "amd64", "it").digest == other


@pytest.mark.parametrize(
    ("variants", "chosen"),
    [(["v3", None], 1), (["v3", ""], 1), (["v10", "v2", "v3"], 1), (["v2", None, None], 1)],
)
def test_of_variants_the_plain_one_is_chosen_or_the_lowest(variants, chosen):
    entries = [entry("amd64", digest=f"sha256:{n:064}") for n in range(len(variants))]
    for one, variant in zip(entries, variants, strict=True):
        if variant is not None:
            one["platform"]["variant"] = variant
    assert oci.choose(index(*entries), "amd64", "it").digest == entries[chosen]["digest"]


def test_an_index_without_the_architecture_names_those_that_it_has():
    found = index(entry("unknown", "unknown"), entry("arm64"), entry("386"), entry("amd64", "x"))
    with pytest.raises(UsageError, match=r"is for amd64 \(x\), arm64, i386, and amd64 is wanted"):
        oci.choose(found, "amd64", "it")
    with pytest.raises(UsageError, match="is for no platform"):
        oci.choose(index(), "amd64", "it")


def test_a_manifest_is_no_index():
    assert oci.read_index(manifest(), "it") is None


def read(document, **changes):
    found = oci.read_manifest(manifest(**changes), "it")
    return oci.read_image("it", HEX, found, document, "amd64")


def test_an_image_has_its_layers_and_its_settings_for_containers():
    image = read(configuration(config={"Env": ["A=b"], "User": "nobody"}))
    assert image.layers == (oci.Layer(HEX, 10, HEX),)
    assert (image.architecture, image.digest, image.size()) == ("amd64", HEX, 10)
    assert image.config == {"Env": ["A=b"], "User": "nobody"}
    assert read(configuration(config=None)).config == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "arm64"}, "is for arm64, and amd64 is wanted"),
        ({"architecture": "386"}, "is for i386, and amd64 is wanted"),
        ({"os": "windows"}, r"is for amd64 \(windows\), and"),
        ({"architecture": 64}, "architecture"),
        ({"rootfs": {"diff_ids": []}}, "has 1 layers, but its configuration lists 0"),
        ({"rootfs": {"diff_ids": ["md5:1"]}}, "diff_ids"),
        ({"config": []}, "config"),
    ],
)
def test_images_that_do_not_fit_are_reported_why(changes, words):
    with pytest.raises(UsageError, match=words):
        read(configuration(**changes))


def test_a_document_has_a_limit(monkeypatch):
    monkeypatch.setattr(oci, "DOCUMENT_LIMIT", len(manifest()))
    assert oci.read_manifest(manifest(), "it")
    with pytest.raises(UsageError, match="it: a document is larger than 0 MiB"):
        oci.read_manifest(manifest() + b" ", "it")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, None),
        ({"variant": "v1"}, None),
        ({"variant": "v3"}, "it is for amd64/v3: its programs do not run on every amd64"),
        ({"architecture": ""}, "it does not say for which architecture it is"),
        ({"architecture": "", "os": ""}, "it does not say for which architecture it is"),
    ],
)
def test_an_image_for_some_processors_only_gets_a_note(changes, note):
    assert read(configuration(**changes)).notes == (() if note is None else (note,))


@pytest.mark.parametrize(
    ("read_it", "key"),
    [
        (
            lambda items: oci.read_index(json.dumps({"manifests": items}).encode(), "it"),
            "manifests",
        ),
        (lambda items: oci.read_manifest(manifest(layers=items), "it"), "layers"),
        (lambda items: read(configuration(rootfs={"diff_ids": items})), "diff_ids"),
    ],
)
def test_a_long_list_is_refused_before_its_items_are_checked(read_it, key, monkeypatch):
    monkeypatch.setattr(oci, "LAYERS_LIMIT", 5)
    with pytest.raises(UsageError, match=f"it: {key} has 6 items; allowed: at most 5"):
        read_it([{}] * 6)

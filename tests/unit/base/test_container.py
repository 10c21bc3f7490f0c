import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.base import container, layers, skopeo
from particle_os.errors import InfrastructureError, UsageError
from particle_os.system import host_packages, process
from particle_os.system.workspace import cache_directory

from .containers import LOWER, UPPER, describe, tar, unpacked


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
    other = container.describe(reference, Path(), "arm64", cache_directory())
    assert (other.digest, other.architecture) == (wrong["digest"], "arm64")
    with pytest.raises(UsageError, match="is for amd64, arm64, and riscv64 is wanted"):
        container.describe(reference, Path(), "riscv64", cache_directory())
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
    with pytest.raises(UsageError, match="is for arm64, and amd64 is wanted"):
        describe(reference)


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


def test_a_registry_that_does_not_answer():
    """Port 9 of the loopback interface refuses the connection."""
    with pytest.raises(InfrastructureError, match="connection refused") as raised:
        describe("docker://127.0.0.1:9/name:tag")
    assert "skopeo login" in raised.value.hint


def test_a_digest_that_is_known_needs_no_registry(layout, fetch):
    image = fetch(layout.name(layout.image(LOWER)))
    again = describe(f"docker://127.0.0.1:9/name@{image.digest}")
    assert again.layers == image.layers


@pytest.mark.parametrize("given", [None, "/run/user/1000"])
def test_credentials_are_looked_for_only_where_the_user_may_look(tmp_path, monkeypatch, given):
    """podman of root makes a directory that no other user may enter."""
    work = SimpleNamespace(path=tmp_path)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(skopeo, "CREDENTIALS", tmp_path / "missing")
    if given:
        monkeypatch.setenv("XDG_RUNTIME_DIR", given)
    assert skopeo.environment(work)["XDG_RUNTIME_DIR"] == (given or str(tmp_path))
    (tmp_path / "there" / str(os.getuid())).mkdir(parents=True)
    monkeypatch.setattr(skopeo, "CREDENTIALS", tmp_path / "there")
    assert skopeo.environment(work).get("XDG_RUNTIME_DIR") == given


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


def test_the_program_that_reads_registries_is_confined(tmp_path):
    within = skopeo.confinement(SimpleNamespace(path=tmp_path), [tmp_path / "a"], tmp_path / "b")
    assert within.memory == skopeo.MEMORY
    assert within.writes == (tmp_path, tmp_path / "b")
    assert tmp_path / "a" in within.reads
    assert Path.home() not in within.reads


def test_the_program_that_reads_registries_gets_only_the_variables_that_it_needs(
    layout, fetch, tmp_path, monkeypatch
):
    def spy(run):
        def spied(*arguments, env=os.environ, **options):
            given.append(dict(env))
            return run(*arguments, env=env, **options)

        return spied

    given = []
    # For an archive of Docker, skopeo reads the documents, too.
    archive = f"docker-archive:{tmp_path}/image.tar:named/base:1"
    reference = layout.name(layout.image(LOWER))
    subprocess.run(["skopeo", "copy", "--quiet", reference, archive], check=True)
    monkeypatch.setenv("A_TOKEN", "secret")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    for name in ("capture", "run"):
        monkeypatch.setattr(process, name, spy(getattr(process, name)))
    fetch(archive)
    assert len(given) > 1
    assert all("A_TOKEN" not in env and env["https_proxy"] for env in given)
    assert all(Path(env["XDG_DATA_HOME"]).parent == Path(env["TMPDIR"]) for env in given)


@pytest.mark.parametrize(("kind", "limited"), [("oci", True), ("docker-archive", False)])
def test_a_file_of_a_layer_is_no_longer_than_the_registry_has_announced(
    layout, fetch, tmp_path, monkeypatch, kind, limited
):
    """skopeo unpacks an archive of docker, whose length is not known."""
    given, real = [], container.process.run

    def run(argv, **options):
        given.append(options["within"].file_size)
        return real(argv, **options)

    monkeypatch.setattr(container.process, "run", run)
    reference = layout.name(layout.image(LOWER))
    if kind == "docker-archive":
        archive = tmp_path / "archive.tar"
        subprocess.run(
            ["skopeo", "copy", "-q", reference, f"docker-archive:{archive}:a:1"], check=True
        )
        reference = f"docker-archive:{archive}"
    image = fetch(reference)
    largest = max(layer.size for layer in image.layers)
    assert given == [largest + container.SLACK if limited else None]

"""A shared cache in a registry: a small one, one that lies, and Debian's docker-registry."""

import json
import subprocess

import pytest
from particle_os.sharing import registry
from particle_os.sharing.registry import RegistryStore
from particle_os.sharing.shared_cache import of_options

from ...registry import Small, debian_registry, serving, sha256
from ...waiting import plenty
from ..registry.conftest import quickly  # noqa: F401 - fixture
from .keys import KEY

ENVELOPE = b"the envelope"


def test_entries_and_blobs_come_back():
    known = Small()
    with serving(known) as host:
        store = RegistryStore(host, "team/cache")
        assert store.entry("base", "ab" * 16) is None
        data = b"a chunk" * 1000
        assert not store.has_blob(sha256(data), len(data))
        store.put_blob(sha256(data), data)
        store.put_entry("base", "ab" * 16, ENVELOPE, {sha256(data): len(data)})
        assert store.has_blob(sha256(data), len(data))
        assert store.blob(sha256(data), len(data), plenty()) == data
        assert store.entry("base", "ab" * 16) == ENVELOPE
        store.put_entry("base", "cd" * 16, ENVELOPE, {sha256(data): len(data)})
    assert len(known.sent) == len(set(known.sent)) == 3, "what is there is not sent again"
    manifest = json.loads(known.manifests[f"base-{'ab' * 16}"][1])
    named = {layer["digest"] for layer in manifest["layers"]}
    assert named == {f"sha256:{sha256(data)}", f"sha256:{sha256(ENVELOPE)}"}


def test_a_registry_that_is_too_slow_is_cut_off_within_a_blob(clock):
    known, data = Small(), bytes(3 << 20)
    known.blobs[sha256(data)] = data
    deadline = clock.deadline(300, "the transfer")
    with serving(known) as host:
        store = RegistryStore(host, "team/cache")
        assert store.blob(sha256(data), len(data), deadline) == data
        clock.sleep(301)
        with pytest.raises(OSError, match="the transfer took longer than 300 s"):
            store.blob(sha256(data), len(data), deadline)
    assert known.asked[1:] == known.asked[:1], "nothing is asked again"


LAYER = f'"sha256:{"ab" * 32}"'


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"{", "malformed"),
        (b"[" * 100000, "malformed"),
        (b"[]", "malformed"),
        (b'{"layers": []}', "malformed"),
        (b'{"layers": [{"digest": "sha256:../../x", "size": 1}]}', "no SHA-256"),
        (f'{{"layers": [{{"digest": {LAYER}}}]}}'.encode(), "malformed"),
        (f'{{"layers": [{{"digest": {LAYER}, "size": 1e999}}]}}'.encode(), "larger than"),
        (f'{{"layers": [{{"digest": {LAYER}, "size": "1"}}]}}'.encode(), "larger than"),
        (f'{{"layers": [{{"digest": {LAYER}, "size": {1 << 40}}}]}}'.encode(), "larger than"),
        (b" " * ((1 << 20) + 1), "larger than"),
    ],
)
def test_a_registry_that_lies_is_an_error_of_one_kind(answer, why, monkeypatch):
    monkeypatch.setattr(registry, "ENTRY_LIMIT", 1 << 20)
    with serving(lambda h: h.say(200, answer)) as host, pytest.raises(OSError, match=why) as caught:
        RegistryStore(host, "team/cache").entry("base", "ab" * 16)
    assert caught.value.strerror


@pytest.fixture
def debian(tmp_path):
    with debian_registry(tmp_path) as host:
        yield host


@pytest.mark.slow
def test_the_registry_of_debian_keeps_a_checkpoint(debian, world):
    """The whole way: a sparse file in chunks, signed, to the registry and back."""
    url = f"oci://{debian}/team/cache"
    cache = of_options([url], [world.public], url, world.secret)
    for _ in range(2):
        cache.keep(world.entry(), {"disk.qcow2": world.file})
    assert cache.has_kept("checkpoint", KEY).files
    found = cache.entry("checkpoint", KEY, world.notes.append)
    place = world.file.parent / "fetched"
    place.mkdir()
    found.fetch(place)
    assert (place / "disk.qcow2").read_bytes() == world.file.read_bytes()
    assert cache.entry("checkpoint", "cd" * 20, world.notes.append) is None
    assert world.notes == []
    # The file needs no special tool: skopeo sees an artifact whose layers are the chunks.
    tag = f"docker://{debian}/team/cache:checkpoint-{KEY}"
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false", tag]
    shown = json.loads(subprocess.run(argv, check=True, stdout=-1).stdout)
    assert shown["artifactType"] == registry.ARTIFACT
    assert len(shown["layers"]) == 1 + len(found.entry.files[0].chunks)

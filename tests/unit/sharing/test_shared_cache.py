"""A shared cache that others can write to gives the right files, or a note and nothing."""

import base64
import hashlib
import json
import os
import re
from pathlib import Path

import pytest
from particle_os.errors import UsageError
from particle_os.jobs.plan import BuildOptions
from particle_os.sharing import shared_cache
from particle_os.sharing.entry import CHUNK
from particle_os.sharing.shared_cache import of_options, windows
from particle_os.sharing.signing import PublicKeys, Signer

from .keys import KEY


def test_a_sparse_file_comes_back_with_its_holes_and_its_time(world):
    world.keep()
    found = world.fetch()
    assert found.read_bytes() == world.file.read_bytes()
    assert found.stat().st_mtime_ns == 10**18 + 1
    assert found.stat().st_blocks * 512 < CHUNK
    assert world.notes == []
    assert list(world.directory.rglob(".*")) == []


def chunks(path):
    with path.open("rb") as file:
        found = list(windows(file.fileno(), path.stat().st_size))
    return [(offset, len(data)) for offset, data in found]


def test_chunks_are_aligned_and_zeros_are_none(tmp_path):
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(4 * CHUNK + 100)
        for place in (CHUNK - 4096, 4 * CHUNK):
            file.seek(place)
            file.write(b"x" * 8192)
    os.truncate(path, 4 * CHUNK + 100)
    assert chunks(path) == [(0, CHUNK), (CHUNK, CHUNK), (4 * CHUNK, 100)]


def test_the_same_content_has_the_same_chunks_wherever_its_holes_are(world, tmp_path):
    """Without data in its memory, the kernel shows allocated zeros as a hole, and later as data."""
    world.keep()
    before = world.blobs
    whole = tmp_path / "whole"
    whole.write_bytes(world.file.read_bytes())
    assert chunks(whole) == chunks(world.file)
    world.keep(key="cd" * 20, file=whole)
    assert world.blobs == before
    assert whole.stat().st_blocks * 512 > 5 * CHUNK
    assert world.fetch(key="cd" * 20).stat().st_blocks * 512 < CHUNK


def test_what_is_there_is_not_sent_again(world):
    world.keep()
    before = {path: path.stat().st_ino for path in world.blobs}
    with world.file.open("r+b") as file:
        file.seek(3 * CHUNK + 4096)
        file.write(b"a small change")
    world.keep()
    after = {path: path.stat().st_ino for path in world.blobs}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    assert world.fetch().read_bytes() == world.file.read_bytes()


def test_an_entry_that_is_not_there_is_no_note(world):
    assert world.fetch() is None
    assert world.notes == []


def envelope(world, change):
    document = json.loads(world.place.read_bytes())
    payload = json.loads(base64.b64decode(document["payload"]))
    change(document, payload)
    document["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    world.place.write_text(json.dumps(document))


def sign_again(world, change):
    """Changes an entry as one who has the key."""
    payload = json.loads(base64.b64decode(json.loads(world.place.read_bytes())["payload"]))
    change(payload)
    world.place.write_bytes(Signer(world.secret).envelope(json.dumps(payload).encode()))


def first_chunk(payload):
    return payload["files"][0]["chunks"][0]


def other_content(world):
    """Gives a chunk a blob that is whole, has its size unpacked, and contains other bytes."""
    packed = shared_cache._packed(b"x" * CHUNK)
    digest = hashlib.sha256(packed).hexdigest()
    place = world.directory / "blobs" / "sha256" / digest[:2] / digest
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(packed)
    sign_again(world, lambda p: first_chunk(p).update(blob=digest, stored=len(packed)))


def replaced(path, make):
    path.unlink()
    make(path)


@pytest.mark.parametrize(
    ("poison", "why"),
    [
        (lambda w: w.place.write_text("{"), "no signed entry"),
        (lambda w: w.place.write_text("[" * 100000), "no signed entry"),
        (lambda w: w.place.write_text("[]"), "no signed entry"),
        (lambda w: envelope(w, lambda d, p: p.update(label="other")), "signature is wrong"),
        (lambda w: envelope(w, lambda d, p: d.update(payloadType="text")), "another kind"),
        (lambda w: envelope(w, lambda d, p: d.update(signatures=[])), "no trusted key"),
        (lambda w: envelope(w, lambda d, p: d["signatures"][0].update(keyid="x")), "no trusted"),
        (lambda w: envelope(w, lambda d, p: d["signatures"][0].update(sig="AA==")), "is wrong"),
        (lambda w: envelope(w, lambda d, p: d["signatures"][0].update(sig="?")), "no signed"),
        (lambda w: sign_again(w, lambda p: p.update(key="cd" * 20)), "it is the checkpoint cdcd"),
        (lambda w: sign_again(w, lambda p: p.update(kind="base")), "it is the base"),
        (lambda w: sign_again(w, lambda p: p.update(version=2)), "another version"),
        (lambda w: sign_again(w, lambda p: p["files"][0].update(name="../x")), "another version"),
        (lambda w: sign_again(w, lambda p: p["files"][0].update(size=5)), "another version"),
        (lambda w: sign_again(w, lambda p: first_chunk(p).update(sha256="0" * 64)), "digest"),
        (other_content, "a chunk has another digest"),
        (lambda w: w.blobs[0].unlink(), "damaged or missing"),
        (lambda w: w.blobs[0].write_bytes(b"x"), "another digest"),
        (lambda w: os.truncate(w.blobs[0], 10), "another digest"),
        (lambda w: os.truncate(w.blobs[0], 1 << 30), "larger than"),
        (lambda w: replaced(w.blobs[0], os.mkfifo), "not a regular file"),
        (lambda w: replaced(w.blobs[0], lambda p: p.symlink_to("/etc/passwd")), "symbolic link"),
        (lambda w: w.blobs[0].rename(w.blobs[1]), "damaged or missing|another digest"),
    ],
)
def test_a_poisoned_entry_costs_a_note(world, poison, why):
    world.keep()
    assert world.fetch() is not None
    poison(world)
    assert world.fetch() is None
    (note,) = world.notes
    assert re.search(why, note), note


def test_the_entry_of_another_key_is_not_taken_in_its_place(world):
    """One who can write, and has no key, can only give an entry another place."""
    world.keep()
    other = world.place.with_name(f"{'cd' * 20}.json")
    other.write_bytes(world.place.read_bytes())
    assert world.fetch(key="cd" * 20) is None
    assert "it is the checkpoint ababab" in world.notes[0]


@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "large"])
def test_another_kind_of_file_in_the_place_of_an_entry_costs_a_note(world, kind):
    world.keep()
    place = world.place
    place.unlink()
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    elif kind == "link":
        place.symlink_to("/etc/passwd")
    else:
        place.touch()
        os.truncate(place, 1 << 30)
    assert world.fetch() is None
    assert len(world.notes) == 1 and "is not used" in world.notes[0]


def test_a_shared_cache_that_fails_is_asked_once(world, monkeypatch):
    asked = []

    def fails(self, kind, key):
        asked.append(key)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("particle_os.sharing.store.DirectoryStore.entry", fails)
    cache = world.cache()
    assert [cache.entry("helper", key * 20, world.notes.append) for key in ("ab", "cd")] == [
        None
    ] * 2
    assert len(asked) == len(world.notes) == 1


def test_any_of_several_keys_may_have_signed(world, pair):
    _, other = pair("other")
    both = world.directory.with_name("both.pub")
    both.write_bytes(other.read_bytes() + world.public.read_bytes())
    world.keep()
    assert world.fetch(keys=[other]) is None
    assert world.fetch(keys=[both]) is not None
    assert world.fetch(keys=[other, world.public]) is not None


def test_an_entry_of_another_writer_is_written_again(world, pair):
    world.keep()
    assert world.cache().has_kept("checkpoint", KEY).key == KEY
    secret, public = pair("other")
    url = f"file://{world.directory}"
    assert of_options([url], [public], url, secret).has_kept("checkpoint", KEY) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "no public key"), (b"x" * 100, "no public key"),
     (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key")],
)  # fmt: skip
def test_a_file_that_is_no_key_is_told(tmp_path, content, why):
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(UsageError, match=why) as caught:
        PublicKeys.read([tmp_path / "k"])
    assert "openssl genpkey" in caught.value.hint
    with pytest.raises(UsageError, match="no private key"):
        Signer(tmp_path / "k")


def test_keys_of_another_kind_are_told(pair):
    secret, public = pair("x", "x25519")
    with pytest.raises(UsageError, match="another kind than Ed25519"):
        PublicKeys.read([public])
    with pytest.raises(UsageError, match="another kind than Ed25519"):
        Signer(secret)


def test_reading_needs_keys_and_writing_needs_one(world):
    with pytest.raises(UsageError, match="--cache-from needs the public key"):
        BuildOptions(cache_from=("file:///x",))
    with pytest.raises(UsageError, match="--cache-to needs a private key"):
        BuildOptions(cache_to="file:///x")
    assert of_options([], [world.public], None, world.secret) is None


@pytest.mark.parametrize(
    "url",
    ["/srv/cache", "file://host/x", "file:x", "oci://x", "oci:///y", "oci://x/Y", "oci://u@x/y",
     "oci://x/y:z", "https://x/y", "", "file:"],
)  # fmt: skip
def test_another_place_than_a_directory_is_told(world, url):
    with pytest.raises(UsageError, match="is no shared cache"):
        of_options([url], [world.public], None, None)


def test_the_signed_bytes_are_those_of_dsse(world):
    """The example of the protocol: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md"""
    assert shared_cache.Signer is Signer
    from particle_os.sharing import signing

    kind = signing.TYPE
    try:
        signing.TYPE = "http://example.com/HelloWorld"
        assert signing._signed(b"hello world") == (
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        )
    finally:
        signing.TYPE = kind


def test_a_full_disk_leaves_no_part_of_an_entry(world, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("particle_os.system.publication.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        world.keep()
    assert [path for path in Path(world.directory).rglob("*") if path.is_file()] == []


def test_a_program_that_hangs_costs_a_note(world, monkeypatch):
    world.keep()
    monkeypatch.setattr(shared_cache, "CHUNK_SECONDS", 0.2)
    monkeypatch.setattr(shared_cache, "UNPACK", ["sleep", "600"])
    assert world.fetch() is None
    assert "unpacking a chunk takes too long" in world.notes[0]

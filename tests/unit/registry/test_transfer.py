"""A transfer continues where it has stopped, and what arrives is what the digest says."""

import io
import os
import threading

import pytest
from particle_os.registry import connection
from particle_os.registry.repository import ImageRepository
from particle_os.registry.transfer import percent

from ...registry import Small, serving, sha256
from ...waiting import until

NAME = "team/server"
DATA = os.urandom(3 << 20)
DIGEST = f"sha256:{sha256(DATA)}"


def upload(known, data=DATA, digest=DIGEST):
    with serving(known) as host:
        repository = ImageRepository(host, NAME)
        repository.upload(digest, len(data), io.BytesIO(data))
        return repository


def download(known, data=DATA, digest=DIGEST, before=b""):
    """The content of a file whose end is a blob."""
    file = io.BytesIO(before)
    file.seek(len(before))
    with serving(known) as host:
        ImageRepository(host, NAME).download(digest, len(data), file)
    return file.getvalue()


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 18, (1 << 18) + 1, 3 << 20])
def test_a_blob_arrives_and_comes_back(size):
    known, data = Small(), DATA[:size]
    digest = f"sha256:{sha256(data)}"
    upload(known, data, digest)
    assert known.blobs == {sha256(data): data}
    assert download(known, data, digest) == data


def test_a_blob_that_is_there_is_not_sent_again():
    known = Small()
    upload(known)
    again = upload(known)
    assert known.sent == [sha256(DATA)]
    assert again.sent == 0
    assert known.received == len(DATA)


@pytest.mark.parametrize("cuts", [[1 << 20], [1 << 20, 1 << 20], [100000] * 6])
def test_an_upload_continues_after_a_cut(cuts):
    known = Small()
    known.cuts = [*cuts]
    upload(known)
    assert known.blobs == {sha256(DATA): DATA}
    assert known.received == len(DATA), "each byte is sent once"
    assert [verb for verb, _ in known.asked].count("POST") == 1


def test_an_upload_that_cannot_continue_begins_again():
    known = Small(resumes=False)
    known.cuts = [1 << 20]
    upload(known)
    assert known.blobs == {sha256(DATA): DATA}
    assert known.received == len(DATA) + (1 << 20)


def test_an_upload_that_gets_no_further_ends():
    known = Small(resumes=False)
    known.cuts = [500] * 100
    with pytest.raises(OSError, match="does not answer"):
        upload(known)
    assert len(known.cuts) == 100 - connection.ATTEMPTS
    assert known.blobs == {}


def test_an_upload_is_complete_when_only_the_last_answer_is_lost():
    known = Small()

    def forgetful(handler):
        if handler.command == "PUT" and not known.sent:
            handler.say = lambda *arguments, **headers: handler.cut()
        known(handler)

    upload(forgetful)
    assert known.sent == [sha256(DATA)]


def test_a_registry_that_claims_another_offset_gets_the_right_bytes_or_none():
    """Whatever the registry says, only the content with the digest is accepted by it."""
    known = Small()
    known.cuts = [1 << 20]

    def lying(handler):
        if handler.command == "GET":
            handler.say(204, Range="0-5", Location=handler.path)
        else:
            known(handler)

    upload(lying)
    assert known.blobs == {sha256(DATA): DATA}


def test_a_blob_that_the_registry_refuses_is_told_with_its_reason():
    with pytest.raises(OSError, match=r"status 400 \(DIGEST_INVALID: no such content\)"):
        upload(Small(), digest=f"sha256:{'ab' * 32}")


def test_a_registry_that_takes_nothing_is_given_up(monkeypatch):
    over = threading.Event()
    known = Small()
    monkeypatch.setattr(connection, "BLOCK_SECONDS", 0.1)
    monkeypatch.setattr(connection, "ATTEMPTS", 1)
    monkeypatch.setattr(connection, "TIMEOUT", connection.Timeout(connect=0.5, read=0.5))

    def full(handler):
        if handler.command == "PATCH":
            until(over.is_set)
        known(handler)

    with pytest.raises(OSError, match="does not answer"):
        data = DATA * 10
        try:
            upload(full, data, f"sha256:{sha256(data)}")
        finally:
            over.set()


def test_an_upload_goes_to_no_other_host():
    def elsewhere(handler):
        handler.say(202, Location="http://127.0.0.1:1/x") if handler.command == "POST" else (
            handler.say(404)
        )

    with pytest.raises(OSError, match="another host"):
        upload(elsewhere)


@pytest.mark.parametrize("cuts", [[1 << 20], [1 << 20, 1 << 20], [100000] * 6])
def test_a_download_continues_after_a_cut(cuts):
    known = Small()
    known.blobs[sha256(DATA)] = DATA
    known.cuts = [*cuts]
    assert download(known, before=b"before") == b"before" + DATA
    assert known.given == len(DATA), "each byte comes once"


def test_a_download_without_ranges_begins_again():
    known = Small(ranges=False)
    known.blobs[sha256(DATA)] = DATA
    known.cuts = [1 << 20]
    assert download(known, before=b"before") == b"before" + DATA
    assert known.given == len(DATA) + (1 << 20)


def test_a_download_that_gets_no_further_ends():
    known = Small()
    known.blobs[sha256(DATA)] = DATA
    known.cuts = [100] * 100
    with pytest.raises(OSError, match="ends its answer"):
        download(known)
    assert len(known.cuts) >= 90


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (DATA[:-1] + bytes([DATA[-1] ^ 1]), "another digest"),
        (DATA + b"x", "larger than"),
        (DATA[:-1], "early"),
        (b"", "early"),
    ],
    ids=["another byte", "more", "less", "nothing"],
)
def test_a_blob_that_is_not_what_its_digest_says_is_refused(content, why):
    known = Small()
    known.blobs[sha256(DATA)] = content
    with pytest.raises(OSError, match=why):
        download(known)


def test_a_part_of_another_place_is_not_taken_for_the_rest():
    """The rest of another offset would fail by its digest only after all of it has come."""
    known = Small()
    known.blobs[sha256(DATA)] = DATA
    known.cuts = [1 << 20]

    def shifted(handler):
        if asked := handler.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            assert start == 1 << 20
            handler.say(206, DATA, Content_Range=f"bytes 0-{len(DATA) - 1}/{len(DATA)}")
        else:
            known(handler)

    assert download(shifted) == DATA


def test_progress_is_told():
    known, seen = Small(), []
    with serving(known) as host:
        repository = ImageRepository(host, NAME, lambda done, size: seen.append((done, size)))
        repository.upload(DIGEST, len(DATA), io.BytesIO(DATA))
        there = len(seen)
        repository.download(DIGEST, len(DATA), io.BytesIO())
    mib = 1 << 20
    assert seen[:there] == [(done, len(DATA)) for done in (mib, 2 * mib, 3 * mib)]
    assert seen[there:] == sorted(seen[there:])
    assert seen[-1] == (len(DATA), len(DATA))


def test_each_percent_is_told_once():
    said = []
    watch = percent("sent", said.append)
    for done in (0, 1, 2, 3, 200):
        watch(done, 200)
    watch(0, 0)
    assert said == [f"sent {number} % of 200 bytes" for number in (0, 1, 100)]

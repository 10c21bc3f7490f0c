"""Layers are fetched once, and what is damaged is fetched again."""

import json

import pytest
from particle_os.base import layers
from particle_os.errors import InfrastructureError, UsageError
from particle_os.jobs import cache
from particle_os.system.workspace import cache_directory, workspace

from .containers import LOWER, UPPER, describe, unpacked


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


def test_a_damaged_layer_that_another_build_has_removed_is_told_as_such(layout, fetch, monkeypatch):
    image = fetch(layout.name(layout.image(LOWER)))
    place = layers.blob(cache_directory() / "images", image.layers[0].digest)
    place.write_bytes(place.read_bytes()[::-1])

    def open_regular(place):
        file = place.open("rb")
        place.unlink()
        return file

    monkeypatch.setattr(layers, "open_regular", open_regular)
    with layers.opened(image, cache_directory()) as stream:
        with pytest.raises(InfrastructureError, match="damaged and is now removed"):
            stream.read()


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

"""The layers of container images in the user's cache, and their stream to the guest agent."""

from __future__ import annotations

import hashlib
import io
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from particle_agent.contract import wire
from particle_agent.contract.decode import encode

from particle_os.base.oci import ContainerImage, Layer
from particle_os.errors import InfrastructureError
from particle_os.system.checksum import file_sha256
from particle_os.system.regular_file import open_regular

CHUNK = 1 << 18


def blob(store: Path, digest: str) -> Path:
    """The path of the blob with this digest in the cache."""
    return store / "sha256" / digest.removeprefix("sha256:")


def is_fetched(image: ContainerImage, cache: Path) -> bool:
    """Whether all layers are in the cache."""
    return not missing_layers(image, cache / "images")


def drop_damaged(image: ContainerImage, cache: Path) -> bool:
    """Removes the layers in the cache that lost their digests; returns whether there were any."""
    found = False
    for layer in image.layers:
        place = blob(cache / "images", layer.digest)
        with suppress(FileNotFoundError):
            if f"sha256:{file_sha256(place)}" != layer.digest:
                place.unlink()
                found = True
    return found


def missing_layers(image: ContainerImage, store: Path) -> list[Layer]:
    """The layers that the cache lacks or has with a wrong size."""

    def is_there(layer: Layer) -> bool:
        try:
            return blob(store, layer.digest).stat().st_size == layer.size
        except FileNotFoundError:
            return False

    return [layer for layer in image.layers if not is_there(layer)]


def opened(image: ContainerImage, cache: Path) -> BinaryIO:
    """The layers as a stream in the format of `particle_agent.unpack.unpack_image`.

    Reading raises InfrastructureError for a layer that no longer has its digest.
    """
    return io.BufferedReader(_Stream(image, cache / "images"), CHUNK)


class _Stream(io.RawIOBase):
    """A header line that lists the layers, and then their blobs, each hashed while it is read."""

    def __init__(self, image: ContainerImage, store: Path) -> None:
        layers = tuple(wire.LayerBlob(size=la.size, diff_id=la.diff_id) for la in image.layers)
        head = json.dumps(encode(wire.ImageHeader(layers=layers))).encode() + b"\n"
        self._current: BinaryIO = io.BytesIO(head)
        self._digest: str | None = None
        self._hash = hashlib.sha256()
        self._left = [layer.digest for layer in image.layers][::-1]
        self._store = store

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not (count := self._current.readinto(buffer)):  # type: ignore[attr-defined]
            self._finish()
            if not self._left:
                return 0
            self._digest = self._left.pop()
            place = blob(self._store, self._digest)
            os.utime(place)
            self._current = open_regular(place)
            self._hash = hashlib.sha256()
        self._hash.update(buffer[:count])
        return int(count)

    def _finish(self) -> None:
        self._current.close()
        self._current = io.BytesIO()
        if self._digest is not None and f"sha256:{self._hash.hexdigest()}" != self._digest:
            place = blob(self._store, self._digest)
            place.unlink(missing_ok=True)
            raise InfrastructureError(
                f"{place} in the cache was damaged and is now removed",
                hint="Build again to fetch it.",
            )
        self._digest = None

    def close(self) -> None:
        self._current.close()
        super().close()

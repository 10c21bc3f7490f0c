"""Reads the container image that the guest has written, and checks all of it but the files in it.

The host neither decompresses nor unpacks a layer. The digest of the uncompressed layer is the
guest's word; programs that unpack the layer check it.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from particle_agent.contract.inspection import BOOTABLE_LABELS

from particle_os.base import oci
from particle_os.errors import InfrastructureError, UsageError, printable
from particle_os.report.results import NAME_CHARACTERS, ContainerLayerResult, ContainerResult
from particle_os.system import tar_archive
from particle_os.system.deadline import Deadline

CHUNK = 1 << 20
VERSION = {"imageLayoutVersion": "1.0.0"}
# An image of one layer has five members.
MEMBERS = 16


@dataclass(frozen=True)
class _ReadBlob:
    """A member of the archive. `data` is its content if it is small enough for a document."""

    size: int
    digest: str
    data: bytes


class _UnfitImage(Exception):
    """The archive is not what the guest had to write."""


def read(path: Path, architecture: str, deadline: Deadline) -> ContainerResult:
    """The image in an archive, for a Debian architecture.

    Raises InfrastructureError for an archive that is not exactly one whole image.
    """
    try:
        return _read(path, architecture, deadline)
    except (UsageError, OSError, tarfile.TarError, _UnfitImage) as error:
        why = error.brief if isinstance(error, UsageError) else str(error)
        raise InfrastructureError(
            f"the guest wrote a container image that cannot be used: {printable(why)}"
        ) from error


def _read(path: Path, architecture: str, deadline: Deadline) -> ContainerResult:
    blobs = _blobs(path, deadline)
    if _json(_taken(blobs, "oci-layout").data) != VERSION:
        raise _UnfitImage("its file oci-layout names another version")
    index = oci.read_index(_taken(blobs, "index.json").data, "index.json")
    if index is None or len(index.manifests) != 1:
        raise _UnfitImage("its index does not name exactly one image")
    digest = oci.choose(index, architecture, "the index").digest
    document = _described(blobs, index.manifests[0])
    manifest = oci.read_manifest(document, "the manifest")
    configuration = _described(blobs, manifest.config)
    image = oci.read_image("the image", digest, manifest, configuration, architecture)
    for layer in manifest.layers:
        _described(blobs, layer)
    if blobs:
        raise _UnfitImage(f"nothing names its member {next(iter(blobs))}")
    return ContainerResult(
        digest=digest,
        layers=tuple(
            ContainerLayerResult(digest=layer.digest, diff_id=layer.diff_id, bytes=layer.size)
            for layer in image.layers
        ),
        labels=_labels(image.config),
    )


def _blobs(path: Path, deadline: Deadline) -> dict[str, _ReadBlob]:
    """The members of the archive, by their names."""
    found: dict[str, _ReadBlob] = {}
    with tar_archive.opened(path, deadline) as archive:
        for member in archive:
            if member.name in found or not member.regular or member.sparse:
                raise _UnfitImage(f"its member {member.name} is there twice, or is no plain file")
            if len(found) == MEMBERS:
                raise _UnfitImage(f"it has more than {MEMBERS} members")
            digest, data = hashlib.sha256(), b""
            while chunk := archive.read(CHUNK):
                digest.update(chunk)
                if member.size <= oci.DOCUMENT_LIMIT:
                    data += chunk
            found[member.name] = _ReadBlob(member.size, f"sha256:{digest.hexdigest()}", data)
    return found


def _described(blobs: dict[str, _ReadBlob], descriptor: oci.Descriptor) -> bytes:
    """The content of the blob, which is taken out. Raises _UnfitImage for another."""
    blob = _taken(blobs, f"blobs/{descriptor.digest.replace(':', '/')}")
    if (blob.size, blob.digest) != (descriptor.size, descriptor.digest):
        raise _UnfitImage(f"the blob {descriptor.digest} has the digest {blob.digest}")
    return blob.data


def _taken(blobs: dict[str, _ReadBlob], name: str) -> _ReadBlob:
    if name not in blobs:
        raise _UnfitImage(f"its member {name} is missing")
    return blobs.pop(name)


def _labels(config: Mapping[str, Any]) -> dict[str, str]:
    found = config.get("Labels")
    labels = found if isinstance(found, dict) else {}
    if any(labels.get(key) != value for key, value in BOOTABLE_LABELS.items()):
        raise _UnfitImage("it lacks the labels of an image that machines can boot")
    pairs = ((str(key), str(value)) for key, value in labels.items())
    return {
        printable(key, NAME_CHARACTERS): printable(value, NAME_CHARACTERS) for key, value in pairs
    }


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None

"""The documents of what a registry gets: manifests, their media types, and their annotations.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md
"""

from __future__ import annotations

import json
import time
from typing import Any

from particle_os.base.oci import ARCHITECTURES
from particle_os.publishing.published_image import PublishedImage
from particle_os.registry.repository import INDEX, MANIFEST, digest_of

VENDOR = "application/vnd.particle-os"
# The types of artifacts. The layer of a disk has the type DISK.FORMAT, or DISK.FORMAT+zstd.
DISK, RESULT_TYPE, REPORT_TYPE = f"{VENDOR}.disk.v1", f"{VENDOR}.result.v1", f"{VENDOR}.report.v1"
RESULT_LAYER, REPORT_LAYER = "application/json", "text/html"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
EMPTY, EMPTY_TYPE = b"{}", "application/vnd.oci.empty.v1+json"
_STANDARD = "org.opencontainers.image"
TITLE, CREATED, VERSION = f"{_STANDARD}.title", f"{_STANDARD}.created", f"{_STANDARD}.version"
FORMAT, ARCHITECTURE = "vnd.particle-os.format", "vnd.particle-os.architecture"
SHA256 = "vnd.particle-os.sha256"
# A runtime that looks for the image of its platform passes over this one.
NO_PLATFORM = {"architecture": "unknown", "os": "unknown"}


def described(kind: str, digest: str, size: int, **more: Any) -> dict[str, Any]:
    """A descriptor of a blob or of a manifest."""
    return {"mediaType": kind, "digest": digest, "size": size, **more}


def annotated(image: PublishedImage, architecture: str | None) -> dict[str, str]:
    """The annotations of the manifest of an image; no time in them is that of the upload."""
    found = {TITLE: image.name, FORMAT: image.format, SHA256: image.sha256}
    if architecture is not None:
        found[ARCHITECTURE] = architecture
    if image.built is not None:
        found[CREATED] = created(image.built.created)
    return found


def created(seconds: float) -> str:
    """A time, in seconds since 1970, as RFC 3339 writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def configuration(image: PublishedImage, architecture: str, diff_id: str) -> bytes:
    """The configuration of a container image with one layer, whose archive has this digest."""
    document: dict[str, Any] = {
        "architecture": ARCHITECTURES.get(architecture, architecture),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    if image.built is not None:
        document["created"] = created(image.built.created)
    return written(document)


def manifest(
    config: dict[str, Any],
    layers: list[dict[str, Any]],
    notes: dict[str, str],
    *,
    kind: str | None = None,
    subject: dict[str, Any] | None = None,
) -> bytes:
    """A manifest; `kind` is the type of an artifact, `subject` the manifest that it is about."""
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST}
    if kind is not None:
        document["artifactType"] = kind
    document |= {"config": config, "layers": layers}
    if subject is not None:
        document["subject"] = subject
    return written({**document, "annotations": notes})


def index(manifests: list[dict[str, Any]], notes: dict[str, str] | None = None) -> bytes:
    """An index of manifests."""
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
    return written({**document, "annotations": notes} if notes else document)


def written(document: dict[str, Any]) -> bytes:
    """A document as bytes, the same ones each time."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def of_manifest(content: bytes, **more: Any) -> dict[str, Any]:
    """The descriptor of a manifest."""
    return described(MANIFEST, digest_of(content), len(content), **more)

"""Makes valid and invalid OCI image layouts for tests."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image."


def named(descriptor: dict[str, Any], name: str) -> dict[str, Any]:
    return {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}


class Layout:
    """An image layout in a directory (image-layout.md of the OCI image specification)."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "blobs/sha256").mkdir(parents=True)
        (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Adds a blob to the layout; returns its descriptor."""
        name = hashlib.sha256(data).hexdigest()
        (self.place / "blobs/sha256" / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data), **more}

    def document(self, value: object, media_type: str, **more: Any) -> dict[str, Any]:
        return self.blob(json.dumps(value).encode(), media_type, **more)

    def image(
        self, *layers: bytes, architecture: str = "amd64", config: object = None, **changes: Any
    ) -> dict[str, Any]:
        """Adds an image with tar archives as layers; `changes` replace fields of its manifest."""
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        about = {"architecture": architecture, "os": "linux", "config": config or {}}
        about["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": self.document(about, f"{OCI}config.v1+json"),
            "layers": [
                self.blob(gzip.compress(layer, mtime=0), f"{OCI}layer.v1.tar+gzip")
                for layer in layers
            ],
            **changes,
        }
        return self.document(manifest, f"{OCI}manifest.v1+json")

    def index(self, manifests: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Adds an index of manifests; returns its descriptor."""
        value = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}index.v1+json",
            "manifests": list(manifests),
        }
        return self.document(value, f"{OCI}index.v1+json")

    def name(self, descriptor: dict[str, Any], name: str = "base") -> str:
        """Makes `name` the only name in the layout, for `descriptor`; returns the reference."""
        self.write_index([named(descriptor, name)])
        return f"oci:{self.place}:{name}"

    def write_index(self, manifests: Sequence[dict[str, Any]]) -> None:
        """Makes these manifests the content of the layout."""
        index = {"schemaVersion": 2, "manifests": list(manifests)}
        (self.place / "index.json").write_text(json.dumps(index))

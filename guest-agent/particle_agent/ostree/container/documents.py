"""The documents of an OCI image: index, manifest and configuration.

The format is that of https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md. The labels
are those of https://bootc.dev/bootc/bootc-images.html.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from particle_agent.contract.architectures.table import native
from particle_agent.contract.inspection import BOOTABLE_LABELS
from particle_agent.errors import EnvironmentFailed

KIND = "application/vnd.oci.image"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
STANDARD = "org.opencontainers.image"


@dataclass(frozen=True)
class OciBlob:
    """A blob in a layout. `digest` is "sha256:" and the SHA-256; `size` is in bytes."""

    kind: str
    digest: str
    size: int

    @classmethod
    def of(cls, kind: str, document: bytes) -> OciBlob:
        return cls(f"{KIND}.{kind}", f"sha256:{sha256(document).hexdigest()}", len(document))

    @property
    def path(self) -> str:
        """The path in the layout."""
        return f"blobs/{self.digest.replace(':', '/')}"

    def described(self, **more: Any) -> dict[str, Any]:
        """The descriptor of the blob."""
        return {"mediaType": self.kind, "digest": self.digest, "size": self.size, **more}


@dataclass(frozen=True)
class ImageDescription:
    """The facts about an image. `date` is in seconds since 1970.

    `ref` and `checksum` name the commit with the same tree; they are None without one.
    """

    title: str
    ref: str | None
    checksum: str | None
    version: str | None
    date: int

    @property
    def created(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.date))

    @property
    def annotations(self) -> dict[str, str]:
        """The keys that also tools read that know nothing of bootc."""
        found = {f"{STANDARD}.created": self.created, f"{STANDARD}.title": self.title}
        if self.version is not None:
            found[f"{STANDARD}.version"] = self.version
        return found

    @property
    def labels(self) -> dict[str, str]:
        """The labels. Those of the commit show the version of OSTree that is the same system."""
        found = {**BOOTABLE_LABELS, **self.annotations}
        if self.checksum is not None and self.ref is not None:
            found |= {"particle-os.commit": self.checksum, "particle-os.ref": self.ref}
        return found

    def configuration(self, diff_id: str) -> bytes:
        """The configuration of an image with one layer, whose uncompressed digest is given."""
        made = {"created": self.created, "created_by": "particle-os"}
        if self.checksum is not None:
            made["comment"] = f"the commit {self.checksum} of {self.ref}"
        return _document(
            {
                "architecture": architecture(),
                "os": "linux",
                "created": self.created,
                "config": {
                    "Cmd": ["/sbin/init"],
                    "Labels": self.labels,
                    # systemd(1): the signal that lets a system in a container stop.
                    "StopSignal": "SIGRTMIN+3",
                },
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                "history": [made],
            }
        )

    def manifest(self, configuration: OciBlob, layer: OciBlob) -> bytes:
        return _document(
            {
                "schemaVersion": 2,
                "mediaType": f"{KIND}.manifest.v1+json",
                "config": configuration.described(),
                "layers": [layer.described()],
                "annotations": self.annotations,
            }
        )

    def index(self, manifest: OciBlob) -> bytes:
        platform = {"architecture": architecture(), "os": "linux"}
        named = {f"{STANDARD}.ref.name": self.title}
        return _document(
            {
                "schemaVersion": 2,
                "mediaType": f"{KIND}.index.v1+json",
                "manifests": [manifest.described(platform=platform, annotations=named)],
            }
        )


def architecture() -> str:
    """The architecture of the system, which is that of the VM. Raises EnvironmentFailed."""
    if (found := native()) is None:
        raise EnvironmentFailed(f"the VM has the unknown architecture {os.uname().machine}")
    # Debian's names and Go's are the same for all architectures of the table.
    return found.name


def _document(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

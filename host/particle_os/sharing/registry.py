"""A shared cache in an OCI registry (https://github.com/opencontainers/distribution-spec).

An entry is a manifest with the tag KIND-KEY. Its first layer is the signed envelope, and the others
are the chunks, so that a registry that removes what no manifest names keeps them.
"""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Mapping
from typing import Any

from particle_os.registry.connection import ANSWER_SECONDS
from particle_os.registry.reference import DIGEST
from particle_os.registry.repository import MANIFEST, ImageRepository
from particle_os.sharing.store import ENTRY_LIMIT, check_time
from particle_os.system.deadline import Deadline

ARTIFACT = "application/vnd.particle-os.cache-entry.v1"
ENVELOPE = f"{ARTIFACT}+dsse"
CHUNK = f"{ARTIFACT}.chunk"
# The content of a configuration that has none (image-spec, "Guidance for an Empty Descriptor").
EMPTY, EMPTY_TYPE = b"{}", "application/vnd.oci.empty.v1+json"


class RegistryStore:
    """A shared cache in one repository of a registry."""

    def __init__(self, host: str, repository: str) -> None:
        self.name = f"oci://{host}/{repository}"
        self._repository = ImageRepository(host, repository)

    @property
    def sent(self) -> int:
        """The bytes of the blobs that were sent."""
        return self._repository.sent

    def entry(self, kind: str, key: str) -> bytes | None:
        found = self._repository.manifest(f"{kind}-{key}", ENTRY_LIMIT)
        if found is None:
            return None
        try:
            first = json.loads(found.content)["layers"][0]
            digest, size = str(first["digest"]), first["size"]
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise OSError(errno.EBADMSG, "a manifest is malformed") from error
        if not DIGEST.fullmatch(digest):
            raise OSError(errno.EBADMSG, "a manifest names no SHA-256")
        if not isinstance(size, int) or not 0 < size <= ENTRY_LIMIT:
            raise OSError(errno.EFBIG, f"an entry is larger than {ENTRY_LIMIT} bytes")
        deadline = Deadline.after(ANSWER_SECONDS, "the entry of a shared cache")
        return self._repository.blob(digest, size, lambda done, whole: check_time(deadline))

    def put_entry(self, kind: str, key: str, envelope: bytes, chunks: Mapping[str, int]) -> None:
        layers = [self._put(envelope, ENVELOPE)]
        layers += [_descriptor(f"sha256:{d}", size, CHUNK) for d, size in chunks.items()]
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT,
            "config": self._put(EMPTY, EMPTY_TYPE), "layers": layers,
        }  # fmt: skip
        self._repository.put_manifest(f"{kind}-{key}", json.dumps(manifest).encode())

    def keep_entry(self, kind: str, key: str) -> None:
        """Does nothing: a registry keeps what a tag names."""

    def has_blob(self, digest: str, size: int) -> bool:
        return self._repository.has_blob(f"sha256:{digest}", size)

    def blob(self, digest: str, size: int, deadline: Deadline) -> bytes:
        return self._repository.blob(
            f"sha256:{digest}", size, lambda done, whole: check_time(deadline)
        )

    def put_blob(self, digest: str, content: bytes) -> None:
        self._repository.upload(f"sha256:{digest}", len(content), io.BytesIO(content))

    def _put(self, content: bytes, kind: str) -> dict[str, Any]:
        return _descriptor(self._repository.put_blob(content), len(content), kind)


def _descriptor(digest: str, size: int, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}

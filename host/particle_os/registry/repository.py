"""One repository of a registry: its manifests and its blobs."""

from __future__ import annotations

import errno
import hashlib
import io
from dataclasses import dataclass
from typing import IO

from particle_os.registry.connection import RegistryLink, Temporary, attempts, finish
from particle_os.registry.transfer import BlobDownload, BlobUpload, TransferWatch

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER = "application/vnd.docker.distribution.manifest"
ACCEPTED = (MANIFEST, INDEX, f"{_DOCKER}.v2+json", f"{_DOCKER}.list.v2+json")
# Registries accept manifests of at most 4 MiB.
MANIFEST_LIMIT = 4 << 20


def digest_of(data: bytes) -> str:
    """The digest of a document, as descriptors write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class StoredManifest:
    """A manifest or an index, as the registry has it; `kind` is the media type that it names."""

    content: bytes
    kind: str

    @property
    def digest(self) -> str:
        return digest_of(self.content)


class ImageRepository:
    """A repository. All methods raise OSError, with a `strerror` for the user."""

    def __init__(
        self, host: str, name: str, watch: TransferWatch = lambda done, size: None
    ) -> None:
        self._link, self._watch = RegistryLink(host, name), watch
        # The bytes of the blobs that were sent, and were not there before.
        self.sent = 0

    def manifest(self, reference: str, limit: int = MANIFEST_LIMIT) -> StoredManifest | None:
        """The manifest with a tag or a digest, which is checked; None without one."""
        headers = {"Accept": ", ".join(ACCEPTED)}
        found = self._link.document(f"manifests/{reference}", limit, headers)
        if found is None:
            return None
        manifest = StoredManifest(*found)
        if reference.startswith("sha256:") and manifest.digest != reference:
            raise OSError(errno.EBADMSG, "a manifest has another digest")
        return manifest

    def put_manifest(self, reference: str, content: bytes, kind: str = MANIFEST) -> bool:
        """Stores a manifest; returns whether the registry has noted its subject."""
        answer = self._link.repeated(
            "PUT", f"manifests/{reference}", headers={"Content-Type": kind}, body=content
        )
        finish(answer)
        if answer.status != 201:
            raise OSError(errno.EIO, f"the registry answers with status {answer.status}")
        return "OCI-Subject" in answer.headers

    def referrers(self, digest: str) -> bytes | None:
        """The index of the manifests about another one; None if the registry has no such list."""
        found = self._link.document(f"referrers/{digest}", MANIFEST_LIMIT, {"Accept": INDEX})
        return found[0] if found is not None and found[1] == INDEX else None

    def has_blob(self, digest: str, size: int) -> bool:
        """Whether the repository has a blob, and does not name another size for it."""
        answer = self._link.repeated("HEAD", f"blobs/{digest}")
        finish(answer)
        return answer.status == 200 and answer.headers.get("Content-Length") in (None, str(size))

    def blob(self, digest: str, size: int, watch: TransferWatch | None = None) -> bytes:
        """A small blob, whose digest is checked. An OSError of `watch` ends the transfer."""
        file = io.BytesIO()
        self.download(digest, size, file, watch)
        return file.getvalue()

    def download(
        self, digest: str, size: int, file: IO[bytes], watch: TransferWatch | None = None
    ) -> None:
        """Writes a blob of `size` bytes to a file; a broken transfer continues where it ended."""
        transfer = BlobDownload(self._link, digest, size, file, watch or self._watch)
        attempts(lambda: transfer.done)(transfer.run)

    def upload(self, digest: str, size: int, file: IO[bytes]) -> None:
        """Adds a blob from a file, unless the repository has it; continues a broken transfer."""
        if self.has_blob(digest, size):
            return
        transfer = BlobUpload(self._link, digest, size, file, self._watch)

        def run() -> None:
            try:
                transfer.run()
            except Temporary:
                # The answer to the last request may be lost.
                answer = self._link.ask("HEAD", f"blobs/{digest}")
                finish(answer)
                if answer.status != 200:
                    raise

        attempts(lambda: transfer.done)(run)
        self.sent += size

    def put_blob(self, content: bytes) -> str:
        """Adds a small blob, and returns its digest."""
        digest = digest_of(content)
        self.upload(digest, len(content), io.BytesIO(content))
        return digest

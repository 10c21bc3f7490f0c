"""Pushes an image to a registry: as a containerdisk, as an artifact, or as both under one tag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from particle_os.base.oci import ARCHITECTURES
from particle_os.publishing import containerdisk
from particle_os.publishing import oci_documents as documents
from particle_os.publishing.published_image import PublishedImage
from particle_os.publishing.referrers import attach
from particle_os.registry.connection import reported
from particle_os.registry.reference import RegistryReference
from particle_os.registry.repository import INDEX, MANIFEST, ImageRepository, digest_of
from particle_os.registry.transfer import percent
from particle_os.report.progress import Progress
from particle_os.system.regular_file import open_regular
from particle_os.system.workspace import Workspace, allocated_bytes, need_room

Way = Literal["containerdisk", "artifact", "both"]
WAYS: tuple[Way, ...] = ("containerdisk", "artifact", "both")


@dataclass(frozen=True)
class Pushed:
    """The new content of a registry: the digests of the tag and of each form, and the bytes sent.

    `attached` are the digests of the manifests with the result and the report.
    """

    reference: str
    digest: str
    forms: dict[str, str]
    attached: tuple[str, ...]
    sent: int


def push(
    image: PublishedImage,
    target: RegistryReference,
    way: Way,
    architecture: str,
    progress: Progress,
    work: Workspace,
) -> Pushed:
    """Pushes an image, and its result and report if there are any.

    The tag is written last, so it names nothing that is not whole. Raises InfrastructureError and
    UsageError.
    """
    assert target.tag is not None
    if way != "artifact":
        containerdisk.check_fit(image)
    repository = ImageRepository(target.host, target.repository, percent("sent", progress.line))
    with reported(f"{target} cannot be pushed"):
        made = _Pusher(image, architecture, repository, progress, work)
        contents = {form: made.form(form) for form in _forms(way)}
        forms = {form: documents.of_manifest(content) for form, content in contents.items()}
        attached = [digest for subject in forms.values() for digest in made.attach(subject)]
        content, kind = made.top(contents)
        with progress.phase("write the tag"):
            repository.put_manifest(target.tag, content, kind)
    return Pushed(
        str(target),
        digest_of(content),
        {form: subject["digest"] for form, subject in forms.items()},
        tuple(attached),
        repository.sent,
    )


def _forms(way: Way) -> tuple[Way, ...]:
    return ("containerdisk", "artifact") if way == "both" else (way,)


@dataclass(frozen=True)
class _Pusher:
    image: PublishedImage
    architecture: str
    repository: ImageRepository
    progress: Progress
    work: Workspace

    def form(self, way: Way) -> bytes:
        """Stores a manifest of the image and all that it names; returns the manifest."""
        content = self._containerdisk() if way == "containerdisk" else self._artifact()
        self.repository.put_manifest(digest_of(content), content)
        return content

    def _containerdisk(self) -> bytes:
        made = self.work.path / "layer"
        need_room(made.parent, allocated_bytes(self.image.path), "the layer of the disk")
        with self.progress.phase("pack disk"):
            layer = containerdisk.pack(self.image, made)
        try:
            self._send(layer.digest, layer.size, made)
        finally:
            made.unlink()
        config = documents.configuration(self.image, self.architecture, layer.diff_id)
        described = documents.described(
            documents.CONFIG, self.repository.put_blob(config), len(config)
        )
        layers = [documents.described(documents.LAYER, layer.digest, layer.size)]
        return documents.manifest(described, layers, self._notes())

    def _artifact(self) -> bytes:
        """The layer is the file as it is, so its digest is that of SHA256SUMS and the result."""
        image, digest = self.image, f"sha256:{self.image.sha256}"
        self._send(digest, image.bytes, image.path)
        kind = f"{documents.DISK}.{image.format}{'+zstd' if image.is_compressed else ''}"
        title = {documents.TITLE: image.path.name}
        layer = documents.described(kind, digest, image.bytes, annotations=title)
        config = documents.described(
            documents.EMPTY_TYPE, self.repository.put_blob(documents.EMPTY), len(documents.EMPTY)
        )
        return documents.manifest(config, [layer], self._notes(), kind=documents.DISK)

    def _notes(self) -> dict[str, str]:
        return documents.annotated(self.image, self.architecture)

    def _send(self, digest: str, size: int, path: Path) -> None:
        with self.progress.phase("send disk"), open_regular(path) as file:
            self.repository.upload(digest, size, file)

    def attach(self, subject: dict[str, Any]) -> list[str]:
        """Attaches the result and the report to a manifest."""
        made = []
        files = (
            (self.image.result, documents.RESULT_TYPE, documents.RESULT_LAYER),
            (self.image.report, documents.REPORT_TYPE, documents.REPORT_LAYER),
        )
        with self.progress.phase("attach result and report"):
            for file, kind, layer_kind in files:
                if file is None:
                    continue
                layer = documents.described(
                    layer_kind, self.repository.put_blob(file.data), len(file.data),
                    annotations={documents.TITLE: file.name},
                )  # fmt: skip
                made.append(attach(self.repository, subject, kind, layer))
        return made

    def top(self, contents: dict[Way, bytes]) -> tuple[bytes, str]:
        """The document that the tag names, a manifest or an index of two, and its media type.

        A container runtime takes the containerdisk from the index, whose platform is its own.
        """
        if len(contents) == 1:
            return next(iter(contents.values())), MANIFEST
        name = ARCHITECTURES.get(self.architecture, self.architecture)
        listed = [
            documents.of_manifest(
                contents["containerdisk"], platform={"architecture": name, "os": "linux"}
            ),
            documents.of_manifest(
                contents["artifact"], platform=documents.NO_PLATFORM, artifactType=documents.DISK
            ),
        ]
        return documents.index(listed, self._notes()), INDEX

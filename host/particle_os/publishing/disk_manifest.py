"""Finds the manifest of the disk that a reference to a registry names."""

from __future__ import annotations

import pydantic

from particle_os.base import oci
from particle_os.errors import InfrastructureError, UsageError, printable
from particle_os.publishing import oci_documents as documents
from particle_os.publishing.referrers import Referrer
from particle_os.registry.reference import RegistryReference
from particle_os.registry.repository import ImageRepository, StoredManifest

HINT = "'particle-os pull' takes what 'particle-os push' has made, and KubeVirt's containerdisks."


class DiskManifest(oci.Manifest):
    """A manifest, which may be that of an artifact."""

    artifact_type: str = pydantic.Field("", alias="artifactType")


class _FormIndex(oci.Index):
    """An index, whose descriptors distinguish artifacts and images."""

    manifests: list[Referrer]  # type: ignore[assignment]


def find_manifest(
    repository: ImageRepository, reference: RegistryReference
) -> tuple[DiskManifest, str]:
    """The manifest of the disk that a reference names, and its digest. Raises UsageError, OSError.

    Of an index, it is the artifact, or the only image.
    """
    found = repository.manifest(reference.selector)
    if found is None:
        raise UsageError(f"{reference} does not exist", hint="Correct the name or the tag.")
    if oci.read_index(found.content, str(reference)) is not None:
        digest = _chosen(found, reference)
        found = repository.manifest(digest)
        if found is None:
            raise InfrastructureError(f"the registry lacks {reference.at(digest)}")
    try:
        return DiskManifest.model_validate_json(found.content), found.digest
    except pydantic.ValidationError as error:
        raise UsageError(
            f"{reference} is no image: its manifest is malformed", hint=HINT
        ) from error


def _chosen(found: StoredManifest, reference: RegistryReference) -> str:
    try:
        listed = _FormIndex.model_validate_json(found.content).manifests
    except pydantic.ValidationError as error:
        raise UsageError(f"{reference} has a malformed index", hint=HINT) from error
    artifacts = [each for each in listed if each.artifact_type == documents.DISK]
    images = [each for each in listed if each.is_image and not each.artifact_type]
    for kind in (artifacts, images):
        if len(kind) == 1:
            return kind[0].digest
    if not artifacts and not images:
        raise UsageError(f"{reference} names no disk", hint=HINT)
    names = ", ".join(_platform(each) for each in (artifacts or images)[:10])
    raise UsageError(
        f"{reference} names several disks: {names}",
        hint=f"Name one of them, such as {reference.at((artifacts or images)[0].digest)}.",
    )


def _platform(listed: Referrer) -> str:
    name = listed.platform.architecture if listed.platform else "unknown"
    return f"{printable(name, 40)} ({listed.digest[:19]}…)"

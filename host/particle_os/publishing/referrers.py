"""The manifests that are attached to another one in a registry: its result and its report.

A registry of OCI 1.1 lists the manifests that name a subject. For an older one, the client keeps
that list under a tag (distribution-spec 1.1, "Referrers Tag Schema").
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from typing import Any

import pydantic

from particle_os.base import oci
from particle_os.publishing import oci_documents as documents
from particle_os.registry.reference import DIGEST
from particle_os.registry.repository import INDEX, MANIFEST_LIMIT, ImageRepository

# Others can attach manifests, too.
REFERRERS_LIMIT = 1000
KEEP_ATTEMPTS = 5


class Referrer(oci.Descriptor):
    """The descriptor of a manifest about another one."""

    artifact_type: str = pydantic.Field("", alias="artifactType")


def list_tag(digest: str) -> str:
    """The tag of the list of the referrers of a manifest, in a registry that keeps no such list."""
    return digest.replace(":", "-")


def attach(
    repository: ImageRepository, subject: dict[str, Any], kind: str, layer: dict[str, Any]
) -> str:
    """Attaches a blob, which the repository has, to a manifest; returns the new one's digest.

    Raises OSError.
    """
    config = documents.described(
        documents.EMPTY_TYPE, repository.put_blob(documents.EMPTY), len(documents.EMPTY)
    )
    notes = {documents.TITLE: layer["annotations"][documents.TITLE]}
    content = documents.manifest(config, [layer], notes, kind=kind, subject=subject)
    added = documents.of_manifest(content, artifactType=kind, annotations=notes)
    if not repository.put_manifest(added["digest"], content):
        _keep_list(repository, subject["digest"], added)
    digest: str = added["digest"]
    return digest


def _keep_list(repository: ImageRepository, subject: str, added: dict[str, Any]) -> None:
    """Adds a descriptor to the list under a tag. Another client may replace the list meanwhile."""
    for _ in range(KEEP_ATTEMPTS):
        listed = _listed(repository, subject)
        if any(each.get("digest") == added["digest"] for each in listed):
            return
        content = documents.index([*listed, added])
        if len(content) > MANIFEST_LIMIT:
            raise OSError(errno.EFBIG, f"the list {list_tag(subject)} is full")
        repository.put_manifest(list_tag(subject), content, INDEX)
    raise OSError(errno.EAGAIN, f"others replace the list {list_tag(subject)} again and again")


def _listed(repository: ImageRepository, subject: str) -> list[dict[str, Any]]:
    """The list under a tag as it is; none for anything else there."""
    found = repository.manifest(list_tag(subject))
    try:
        manifests = json.loads(found.content)["manifests"] if found else []
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [each for each in manifests if isinstance(each, dict)]


def referrers(repository: ImageRepository, subject: str, kind: str) -> Iterator[Referrer]:
    """The descriptors of the manifests of a type about another one. Raises OSError."""
    content = repository.referrers(subject)
    if content is None:
        found = repository.manifest(list_tag(subject))
        content = found.content if found is not None else b"{}"
    try:
        items = json.loads(content)["manifests"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    for item in items[:REFERRERS_LIMIT] if isinstance(items, list) else ():
        try:
            each = Referrer.model_validate(item)
        except pydantic.ValidationError:
            continue
        if each.artifact_type == kind and DIGEST.fullmatch(each.digest):
            yield each

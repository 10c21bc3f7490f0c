"""The result and the report that are attached to an image in a registry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pydantic

from particle_os.errors import InfrastructureError
from particle_os.publishing import oci_documents as documents
from particle_os.publishing.disk_manifest import DiskManifest
from particle_os.publishing.pulled_disk import PulledDisk
from particle_os.publishing.referrers import referrers
from particle_os.registry.reference import RegistryReference
from particle_os.registry.repository import ImageRepository
from particle_os.report.pages import is_inert
from particle_os.report.results import RESULT_LIMIT, Result

# The names of recipes, which are parts of file names.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Several builds may have made the same disk.
ATTACHED = 20


@dataclass(frozen=True)
class AttachedResult:
    """A result: its bytes, the name and the status of the build, and its time."""

    document: bytes
    name: str
    status: str
    created: float


def find_result(
    repository: ImageRepository, digest: str, disk: PulledDisk, reference: RegistryReference
) -> AttachedResult | None:
    """The newest result that names the disk; None if nothing is attached.

    Raises InfrastructureError if all results are about other disks, and OSError.
    """
    fitting, others = [], 0
    for data in _attached(repository, digest, documents.RESULT_TYPE):
        try:
            result = Result.model_validate_json(data)
        except pydantic.ValidationError:
            others += 1
            continue
        if _is_about(result, disk):
            fitting.append(AttachedResult(data, result.recipe, result.status, result.created))
        else:
            others += 1
    if others and not fitting:
        raise InfrastructureError(
            f"the result in the registry is not about the disk of {reference}, whose SHA-256 is "
            f"{disk.sha256}",
            hint="Push the image again, and find out who can write to the registry.",
        )
    return max(fitting, key=lambda found: found.created, default=None)


def _is_about(result: Result, disk: PulledDisk) -> bool:
    """Whether a build has made a disk, under the name that the file will get."""
    if not NAME.fullmatch(result.recipe):
        return False
    wanted = (f"{result.recipe}.{disk.ending}", disk.sha256, disk.bytes)
    return any((a.path, a.sha256, a.bytes) == wanted for a in result.artifacts)


def find_report(repository: ImageRepository, digest: str) -> bytes | None:
    """The report, unless it could run scripts in the user's browser."""
    found = _attached(repository, digest, documents.REPORT_TYPE)
    return next((data for data in found if is_inert(data)), None)


def _attached(repository: ImageRepository, digest: str, kind: str) -> Iterator[bytes]:
    """The content of what is attached to a manifest, of one type. Raises OSError."""
    for number, each in enumerate(referrers(repository, digest, kind)):
        if number == ATTACHED:
            return
        found = repository.manifest(each.digest)
        try:
            layers = DiskManifest.model_validate_json(found.content).layers if found else []
        except pydantic.ValidationError:
            continue
        if len(layers) == 1 and layers[0].size <= RESULT_LIMIT:
            yield repository.blob(layers[0].digest, layers[0].size)

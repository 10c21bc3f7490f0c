"""Brings an image back from a registry, with the result and the report of its build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from particle_os.publishing.disk_manifest import find_manifest
from particle_os.publishing.published_image import REPORT, RESULT
from particle_os.publishing.pulled_disk import PulledDisk, fetch_disk
from particle_os.publishing.pulled_result import AttachedResult, find_report, find_result
from particle_os.publishing.pulled_set import PulledSet
from particle_os.registry.connection import reported
from particle_os.registry.reference import RegistryReference
from particle_os.registry.repository import ImageRepository
from particle_os.registry.transfer import percent
from particle_os.report.progress import Progress
from particle_os.system import publication
from particle_os.system.workspace import Workspace


@dataclass(frozen=True)
class Pulled:
    """The files of an image from a registry. `status` is that of its build; None without one."""

    reference: str
    path: Path
    bytes: int
    sha256: str
    status: str | None
    result: Path | None
    report: Path | None


def pull(
    reference: RegistryReference,
    place: PulledSet,
    progress: Progress,
    work: Workspace,
    *,
    force: bool = False,
) -> Pulled:
    """Publishes the disk, the result and the report in the directory of `place`.

    Files of the same name from elsewhere are replaced only with `force`. Raises UsageError for
    them, and for what is no disk, and InfrastructureError, also when the result in the registry is
    about another disk.
    """
    if not force:
        place.check()
    staging = work.adopt_directory(place.directory)
    repository = ImageRepository(
        reference.host, reference.repository, percent("fetched", progress.line)
    )
    with reported(f"{reference} cannot be pulled"):
        manifest, digest = find_manifest(repository, reference)
        with progress.phase("fetch disk"):
            disk = fetch_disk(manifest, repository, staging / "disk", work.path, str(reference))
        with progress.phase("fetch result and report"):
            found = find_result(repository, digest, disk, reference)
            report = find_report(repository, digest) if found else None
    if found is None:
        progress.note("the registry has no result of a build: nothing says that the disk boots")
    elif report is None:
        progress.note("the registry has no report that is safe to open")
    if found is not None and found.name != place.name:
        progress.note(f"its build has called it '{found.name}'")
    files = {f"{place.name}.{disk.ending}": disk.path}
    for ending, data in ((RESULT, found and found.document), (REPORT, report)):
        if data:
            files[f"{place.name}.{ending}"] = staging / ending
            (staging / ending).write_bytes(data)
    return _published(reference.at(digest), files, disk, found, staging, place)


def _published(
    reference: str,
    files: dict[str, Path],
    disk: PulledDisk,
    result: AttachedResult | None,
    staging: Path,
    place: PulledSet,
) -> Pulled:
    for name, path in files.items():
        path.rename(staging / name)
    first, *others = files
    place.write_record(staging, first, disk.sha256)
    output = place.directory
    publication.publish(staging, output, place.change(first, others, disk.sha256))
    places = {name.partition(".")[2]: output / name for name in others}
    status = result.status if result else None
    return Pulled(
        reference, output / first, disk.bytes, disk.sha256, status,
        places.get(RESULT), places.get(REPORT),
    )  # fmt: skip

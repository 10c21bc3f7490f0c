"""The disk of an image in a registry, on its way into a file.

Everything that a registry says is untrusted. No name from it becomes the name of a file.
"""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from particle_os.base import oci
from particle_os.errors import InfrastructureError, UsageError, printable
from particle_os.publishing import oci_documents as documents
from particle_os.publishing.containerdisk import DIRECTORY
from particle_os.publishing.disk_manifest import HINT, DiskManifest
from particle_os.publishing.published_image import ARTIFACT_FORMATS
from particle_os.registry.repository import ImageRepository
from particle_os.report.results import ArtifactFormat
from particle_os.system import tar_archive
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import need_room
from particle_os.vm.image_format import FORMATS, image_format

# Bytes of a disk; what is no hole needs room on the host's disk as well.
DISK_LIMIT = 1 << 42
SECONDS = 3600.0
PIECE, CHUNK, ROOM_STEP = 1 << 16, 1 << 20, 1 << 28
# More layers than one are unusual.
LAYERS_LIMIT = 8
# The media types of disks: the format, and whether zstd has compressed the file.
KINDS: dict[str, tuple[ArtifactFormat, bool]] = {
    **{f"{documents.DISK}.{name}": (name, False) for name in ARTIFACT_FORMATS},
    f"{documents.DISK}.raw+zstd": ("raw", True),
}


@dataclass(frozen=True)
class PulledDisk:
    """A disk in the file `path`; `sha256` is that of the file, as SHA256SUMS has it."""

    path: Path
    format: ArtifactFormat
    is_compressed: bool
    bytes: int
    sha256: str

    @property
    def ending(self) -> str:
        """The ending of the name of the file."""
        return f"{self.format}.zst" if self.is_compressed else self.format


def fetch_disk(
    manifest: DiskManifest, repository: ImageRepository, made: Path, work: Path, what: str
) -> PulledDisk:
    """Writes the disk of a manifest to the file `made`, and checks it.

    `work` is a directory for layers. Raises UsageError for what is no disk, and OSError.
    """
    if manifest.artifact_type == documents.DISK:
        disk = _fetch_artifact(manifest, repository, made, what)
    elif manifest.config.media_type in oci.CONFIGS and not manifest.artifact_type:
        disk = _fetch_containerdisk(manifest, repository, made, work, what)
    else:
        kind = printable(manifest.artifact_type or manifest.config.media_type, 100)
        raise UsageError(f"{what} is no disk, but {kind}", hint=HINT)
    if not disk.is_compressed:
        _check_format(disk, what)
    return disk


def _check_format(disk: PulledDisk, what: str) -> None:
    """Raises UsageError for a disk of another format, or one that names a file of this host."""
    found = image_format(disk.path, None if disk.format in ("raw", "qcow2") else disk.format)
    if found != FORMATS[disk.format]:
        raise UsageError(f"the disk of {what} has the format {found}, and not {disk.format}")


def _fetch_artifact(
    manifest: DiskManifest, repository: ImageRepository, made: Path, what: str
) -> PulledDisk:
    if len(manifest.layers) != 1 or manifest.layers[0].media_type not in KINDS:
        raise UsageError(f"{what} has no disk of a known kind", hint=HINT)
    layer = manifest.layers[0]
    if layer.size > DISK_LIMIT:
        raise UsageError(f"{what} has a disk of {layer.size} bytes; allowed: {DISK_LIMIT}")
    need_room(made.parent, layer.size, "the disk")
    with made.open("xb+") as file:
        repository.download(layer.digest, layer.size, file)
    form, packed = KINDS[layer.media_type]
    return PulledDisk(made, form, packed, layer.size, layer.digest.removeprefix("sha256:"))


def _fetch_containerdisk(
    manifest: DiskManifest, repository: ImageRepository, made: Path, work: Path, what: str
) -> PulledDisk:
    layers = manifest.layers
    if not 1 <= len(layers) <= LAYERS_LIMIT:
        raise UsageError(f"{what} has {len(layers)} layers, and is no containerdisk", hint=HINT)
    # A file of an upper layer hides that of a lower one.
    for number, layer in enumerate(reversed(layers)):
        if layer.media_type not in oci.LAYERS:
            raise UsageError(f"{what} has a layer of an unknown kind", hint=HINT)
        place = work / f"layer-{number}"
        need_room(work, layer.size, "the layer of the disk")
        with place.open("xb+") as file:
            repository.download(layer.digest, layer.size, file)
        try:
            found = _unpack(place, made, what)
        except tarfile.TarError as error:
            why = printable(str(error), 300)
            raise InfrastructureError(f"{what} has a damaged layer: {why}") from error
        finally:
            place.unlink()
        if found is not None:
            size, sha256 = found
            form: ArtifactFormat = "qcow2" if image_format(made) == "qcow2" else "raw"
            return PulledDisk(made, form, False, size, sha256)
    raise UsageError(
        f"{what} is a container image without a disk in /{DIRECTORY}",
        hint=f"{HINT} As a base image, name it in the recipe.",
    )


def _unpack(layer: Path, made: Path, what: str) -> tuple[int, str] | None:
    """Writes the only file in the directory `disk` of a layer; returns its size and its SHA-256.

    None for a layer without such a file.
    """
    deadline = Deadline.after(SECONDS, "unpacking the disk")
    found: tuple[int, str] | None = None
    with tar_archive.opened(layer, deadline, DISK_LIMIT) as archive:
        for member in archive:
            name = member.name.removeprefix("./").lstrip("/")
            if not name.startswith(f"{DIRECTORY}/") or not member.regular:
                continue
            if found is not None:
                raise UsageError(f"{what} has several files in /{DIRECTORY}", hint=HINT)
            if member.sparse:
                raise UsageError(f"{what} has a sparse member, which is unusual", hint=HINT)
            with made.open("xb") as file:
                found = _write(archive, file)
    return found


def _write(archive: tar_archive.Archive, file: IO[bytes]) -> tuple[int, str]:
    """Writes the content of a member with holes for zeros."""
    digest, size, checked = hashlib.sha256(), 0, 0
    while data := archive.read(CHUNK):
        if size >= checked:
            need_room(Path(file.name).parent, ROOM_STEP, "the disk")
            checked = size + ROOM_STEP
        digest.update(data)
        size += len(data)
        write_sparsely(file, data)
    file.truncate(size)
    return size, digest.hexdigest()


def write_sparsely(file: IO[bytes], data: bytes) -> None:
    """Writes data at the end of a file, and leaves holes for zeros; the caller truncates it."""
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE]
        if piece.count(0) == len(piece):
            file.seek(len(piece), 1)
        else:
            file.write(piece)

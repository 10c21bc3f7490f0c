"""Local OCI image layouts: a directory, or a tar archive of one.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
"""

from __future__ import annotations

import errno
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from particle_os.base import oci
from particle_os.base.layers import blob
from particle_os.errors import UsageError, printable
from particle_os.system import tar_archive
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import read_regular, write_whole
from particle_os.system.workspace import failed_call

CHUNK = 1 << 18
INDEX = "index.json"
# The list of images in an archive of `docker save`.
DOCKER_INDEX = "manifest.json"
NAMES_SHOWN = 20


@dataclass(frozen=True)
class Layout:
    """A layout in the directory or the tar archive `path`; `reference` is for messages."""

    path: Path
    is_archive: bool
    reference: str
    deadline: Deadline

    def named(self, name: str, architecture: str) -> oci.Descriptor:
        """The image or index of a name, or the only one if `name` is empty.

        An index file may list one image for each platform, too. Raises UsageError that lists the
        names when there is no such image, or several.
        """
        document = self._read(INDEX)
        if not document:
            raise self._no_layout()
        index = oci.read_index(document, self.reference)
        if index is None:
            raise UsageError(f"{self.reference}: {INDEX} is no index of images")
        found = [m for m in index.manifests if not name or m.name == name]
        if len(found) == 1:
            return found[0]
        if not index.manifests:
            raise UsageError(f"{self.reference} holds no image: its {INDEX} is empty")
        names = sorted({m.name for m in index.manifests if m.name})
        if found and len({m.name for m in found}) == 1:
            return oci.choose(oci.Index(manifests=found), architecture, self.reference)
        raise no_single_image(self.reference, name, names)

    def document(self, digest: str) -> bytes:
        """A document; empty when it is missing. Raises UsageError for one that is too large."""
        return self._read(_blob_name(digest))

    def _read(self, name: str) -> bytes:
        try:
            if self.is_archive:
                return members(self.path, [name], self.deadline).get(name, b"")
            return read_regular(self.path / name, oci.DOCUMENT_LIMIT)
        except FileNotFoundError:
            return b""
        except (OSError, tarfile.TarError) as error:
            raise unreadable(self.reference, error) from error

    def _no_layout(self) -> UsageError:
        if self.is_archive and self._read(DOCKER_INDEX):
            return UsageError(
                f"{self.reference} is an archive of 'docker save'",
                hint="Write docker-archive: in place of oci-archive:.",
            )
        return UsageError(f"{self.reference} is no OCI image layout: it has no {INDEX}")

    def of_one_image(
        self, digest: str, layers: Sequence[oci.Layer], directory: Path
    ) -> tuple[Path, Path]:
        """Makes a layout in `directory` that has one image only; returns it and its blobs.

        `layers` are those to extract from an archive.
        """
        manifest = self.document(digest)
        directory.mkdir()
        blobs = self.path / "blobs"
        if self.is_archive:
            blobs = directory / "blobs"
            configuration = oci.read_manifest(manifest, self.reference).config
            sizes = {layer.digest: layer.size for layer in layers}
            sizes |= {digest: len(manifest), configuration.digest: configuration.size}
            self._extract(sizes, blobs)
        descriptor = {
            "mediaType": oci.kind_of(manifest, self.reference),
            "digest": digest,
            "size": len(manifest),
        }
        index = {"schemaVersion": 2, "manifests": [descriptor]}
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (directory / INDEX).write_text(json.dumps(index))
        return directory, blobs

    def _extract(self, sizes: Mapping[str, int], blobs: Path) -> None:
        """Extracts the blobs of these digests and sizes; skopeo checks their digests later."""
        names = {_blob_name(digest): digest for digest in sizes}
        try:
            with tar_archive.opened(self.path, self.deadline) as archive:
                for member in archive:
                    digest = names.pop(member.name.removeprefix("./"), None)
                    # A blob of another size than the manifest says would fill the disk.
                    if digest and member.regular and member.size == sizes[digest]:
                        with _written(blob(blobs, digest)) as write:
                            while data := archive.read(CHUNK):
                                write(data)
                    if not names:
                        break
        except (OSError, tarfile.TarError) as error:
            raise unreadable(self.reference, error) from error


@contextmanager
def _written(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Makes a file; yields the function that appends to it.

    Raises InfrastructureError when it cannot be written: the archive that is read is not to blame.
    """

    @contextmanager
    def blamed() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(path)
            raise failed_call(error) from error

    def write(data: bytes) -> None:
        with blamed():
            write_whole(file.fileno(), data, path)

    with blamed():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer, nothing is left to write when the file is closed.
        file = path.open("wb", buffering=0)
    with file:
        yield write


def members(path: Path, names: Sequence[str], deadline: Deadline) -> dict[str, bytes]:
    """The content of some members of an archive; missing ones are left out.

    Raises OSError, also for a member that is too large, and TarError.
    """
    found: dict[str, bytes] = {}
    with tar_archive.opened(path, deadline) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name in names and member.regular and name not in found:
                if member.size > oci.DOCUMENT_LIMIT:
                    raise OSError(errno.EFBIG, f"larger than {oci.DOCUMENT_LIMIT} bytes", name)
                found[name] = archive.read(oci.DOCUMENT_LIMIT)
            if len(found) == len(names):
                break
    return found


def unreadable(reference: str, error: Exception) -> UsageError:
    """The error for a layout or an archive that is incomplete or damaged."""
    return UsageError(
        f"{reference} cannot be read: {error}",
        hint="Check that the files are complete, for example with 'skopeo inspect'.",
    )


def no_single_image(reference: str, name: str, names: Sequence[str]) -> UsageError:
    """The error for a file without the image `name`, or, without a name, with several."""
    transport = reference.partition(":")[0]
    shown = ", ".join(printable(found, 100) for found in names[:NAMES_SHOWN]) or "no names"
    shown += f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    problem = f"holds no image '{printable(name, 100)}'" if name else "holds several images"
    return UsageError(
        f"{reference} {problem}; it has {shown}",
        hint=f"Write the name after the path and a colon, as in {transport}:PATH:NAME.",
    )


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"

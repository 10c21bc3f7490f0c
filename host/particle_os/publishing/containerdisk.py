"""The layer of a KubeVirt containerdisk: an archive with one disk in the directory `disk`.

The rules: https://kubevirt.io/user-guide/storage/disks_and_volumes/#containerdisk-workflow-example
(a raw or qcow2 file in /disk, owned by the user 107, based on `scratch`, and nothing else).
"""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from particle_os.errors import InfrastructureError, UsageError
from particle_os.publishing.published_image import PublishedImage
from particle_os.report.results import ArtifactFormat
from particle_os.system import process
from particle_os.system.checksum import file_sha256
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular

# The formats that KubeVirt takes, the better one first.
FORMATS: tuple[ArtifactFormat, ...] = ("qcow2", "raw")
DIRECTORY = "disk"
OWNER, FILE_MODE, DIRECTORY_MODE = 107, 0o440, 0o555
SECONDS = 3600.0
CHUNK = 1 << 20
PACK = ["zstd", "--quiet", "-3", "-T0", "--stdout"]


@dataclass(frozen=True)
class PackedLayer:
    """A layer in a file. `digest` is that of the file, `diff_id` that of the archive in it."""

    path: Path
    size: int
    digest: str
    diff_id: str


def check_fit(image: PublishedImage) -> None:
    """Raises UsageError for an image that KubeVirt does not take."""
    if image.format not in FORMATS or image.is_compressed:
        kind = f"{image.format}, compressed" if image.is_compressed else image.format
        raise UsageError(
            f"KubeVirt takes no disk of this kind: {image.path} is {kind}",
            hint="Add qcow2 to 'formats' in the recipe, or push it with --as artifact.",
        )


def pack(image: PublishedImage, made: Path) -> PackedLayer:
    """Writes the layer of an image to the file `made`.

    The same image makes the same layer. Raises InfrastructureError, also when the image is no
    longer what it was.
    """
    deadline = Deadline.after(SECONDS, "packing the disk")
    archive, content = hashlib.sha256(), hashlib.sha256()
    with made.open("xb") as output, open_regular(image.path) as disk:
        with process.started(
            PACK, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.DEVNULL
        ) as packer:
            assert packer.stdin is not None
            for data in _archive(image, disk, content):
                archive.update(data)
                _give(packer.stdin.fileno(), data, deadline)
            packer.stdin.close()
            if process.wait(packer, deadline.remaining()) != 0:
                raise InfrastructureError("packing the disk failed: is the disk of the host full?")
    if content.hexdigest() != image.sha256:
        raise InfrastructureError(f"{image.path} has changed while it was packed")
    digest, diff_id = f"sha256:{file_sha256(made)}", f"sha256:{archive.hexdigest()}"
    return PackedLayer(made, made.stat().st_size, digest, diff_id)


def _archive(image: PublishedImage, disk: BinaryIO, content: hashlib._Hash) -> Iterator[bytes]:
    """The blocks of the archive; adds those of the disk to `content`."""
    yield _header(DIRECTORY, 0, tarfile.DIRTYPE, DIRECTORY_MODE)
    yield _header(f"{DIRECTORY}/{image.path.name}", image.bytes, tarfile.REGTYPE, FILE_MODE)
    left = image.bytes
    while left and (data := disk.read(min(CHUNK, left))):
        content.update(data)
        left -= len(data)
        yield data
    yield bytes(-image.bytes % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int, kind: bytes, mode: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.mode = size, kind, mode
    member.uid = member.gid = OWNER
    return member.tobuf(tarfile.PAX_FORMAT)


def _give(descriptor: int, data: bytes, deadline: Deadline) -> None:
    """Writes to a pipe whose reader may be slow, but not slower than the deadline."""
    os.set_blocking(descriptor, False)
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    rest = memoryview(data)
    while rest:
        if poll.poll(deadline.remaining() * 1000):
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BrokenPipeError as error:
                raise InfrastructureError("the program that packs the disk has ended") from error

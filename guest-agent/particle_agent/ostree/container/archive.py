"""Writes a commit as an OCI image in one file: the layout of an `oci-archive`.

The format is that of image-layout.md in
https://github.com/opencontainers/image-spec/tree/v1.1.1, in a tar archive. The layer goes to the
disk while it is compressed. Its name, which is its digest, and its size are known after that, and
fill the header that precedes it.
"""

from __future__ import annotations

import subprocess
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import chain
from typing import IO, BinaryIO

from particle_agent.contract.wire import OutputName
from particle_agent.errors import EnvironmentFailed
from particle_agent.ostree.container import layer, lints
from particle_agent.ostree.container.documents import KIND, LAYOUT, ImageDescription, OciBlob
from particle_agent.system import tarball
from particle_agent.system.tarball import MIB
from particle_agent.target.target import Target

DISK: OutputName = "oci-archive"
# zstd(1): the output is the same for each number of threads, but not without one.
COMPRESSOR = ("zstd", "-3", "-T2", "--quiet", "--stdout")
END_SECONDS = 600.0
# Incompressible data grows by less than this part of its size.
GROWTH = 128
# Programs and texts shrink to less than a half.
SHRINKAGE = 2


def write(
    target: Target,
    ref: str,
    checksum: str,
    version: str | None,
    directories: Sequence[layer.VarDirectory] = (),
) -> None:
    """Writes the image of a commit, whose tree is the target, to its output disk.

    `directories` are those of /var, which is empty in the tree. Raises StageError for a tree that
    `bootc container lint` would refuse.
    """
    date = int(time.time()) if target.source_date is None else target.source_date
    image = ImageDescription(target.hostname, ref, checksum, version, date)
    with target.mounted(target.root, "--bind") as tree:
        content = tarball.measure(tree)
        size = -(-(content + content // GROWTH) // MIB) * MIB
        disk = target.output_disk(size, content=content // SHRINKAGE, disk=DISK)
        seen = lints.SeenTree()
        with disk.open("r+b") as file, target.timings.part("container image"):
            members = layer.members(tree, target.source_date)
            more = layer.of_var(tree, directories, date)
            written = write_to(file, image, _seen(chain(members, more), seen))
        found = lints.found(seen)
    lints.report(target, found)
    target.run(["sync"])
    target.reporter.disk_written(written, DISK)


def _seen(
    members: Iterable[layer.LayerMember], seen: lints.SeenTree
) -> Iterator[layer.LayerMember]:
    """The members of the layer, which the lints see as they are written."""
    for member in members:
        seen.take(member)
        yield member


def write_to(file: BinaryIO, image: ImageDescription, members: Iterator[layer.LayerMember]) -> int:
    """Writes the archive; returns its size in bytes."""
    _write_member(file, "oci-layout", LAYOUT, image.date)
    place = file.tell()
    file.write(bytes(tarfile.BLOCKSIZE))
    blob, diff_id = _write_layer(file, members)
    _pad(file, blob.size)
    end = file.tell()
    file.seek(place)
    file.write(_header(blob.path, blob.size, image.date))
    file.seek(end)
    configuration = image.configuration(diff_id)
    configured = OciBlob.of("config.v1+json", configuration)
    manifest = image.manifest(configured, blob)
    described = OciBlob.of("manifest.v1+json", manifest)
    for found, document in ((configured, configuration), (described, manifest)):
        _write_member(file, found.path, document, image.date)
    _write_member(file, "index.json", image.index(described), image.date)
    file.write(layer.END)
    return file.tell()


def _write_layer(file: BinaryIO, members: Iterator[layer.LayerMember]) -> tuple[OciBlob, str]:
    """Writes the compressed layer; returns its blob, and the digest of the uncompressed one."""
    with _compressed(file) as (sink, hashed):
        for member in members:
            layer.write(member, sink)
        sink.write(layer.END)
    blob = OciBlob(f"{KIND}.layer.v1.tar+zstd", hashed.digest, hashed.size)
    return blob, sink.digest


class _HashedSink:
    """Passes data on to a file, and computes its SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


@contextmanager
def _compressed(file: BinaryIO) -> Iterator[tuple[_HashedSink, _HashedSink]]:
    """Compresses what is written to the first sink; the second one hashes the result.

    Both are complete after the context. Raises EnvironmentFailed when zstd fails.
    """
    result = _HashedSink(file)
    failed: list[OSError] = []
    with subprocess.Popen(COMPRESSOR, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as zstd:
        assert zstd.stdin is not None
        assert zstd.stdout is not None
        reader = threading.Thread(target=_copy, args=(zstd.stdout, result, failed))
        reader.start()
        try:
            yield _HashedSink(zstd.stdin), result
            zstd.stdin.close()
        except BrokenPipeError:
            pass  # The status of zstd, or the error of the disk, follows.
        except BaseException:
            zstd.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                zstd.stdin.close()
            reader.join(END_SECONDS)
        status = zstd.wait(END_SECONDS)
    if failed:
        raise failed[0]
    if status != 0:
        raise EnvironmentFailed(f"zstd cannot compress the layer (status {status})")


def _copy(source: IO[bytes], sink: _HashedSink, failed: list[OSError]) -> None:
    try:
        while data := source.read(layer.CHUNK):
            sink.write(data)
    except OSError as error:
        failed.append(error)
        source.close()


def _write_member(file: BinaryIO, name: str, content: bytes, date: int) -> None:
    file.write(_header(name, len(content), date))
    file.write(content)
    _pad(file, len(content))


def _pad(file: BinaryIO, size: int) -> None:
    file.write(bytes(-size % tarfile.BLOCKSIZE))


def _header(name: str, size: int, date: int) -> bytes:
    """One block, also for a size of more than 8 GiB."""
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = size, date, 0o644
    return header.tobuf(tarfile.GNU_FORMAT)

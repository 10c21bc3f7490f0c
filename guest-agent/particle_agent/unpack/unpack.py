"""Unpacks the base, a tarball or a container image, from a stream."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from particle_agent.contract import wire
from particle_agent.contract.decode import decode
from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.target.command import PIPE_BYTES, TAR_RECORDS
from particle_agent.target.inside import resolve
from particle_agent.unpack import bootable_image, layers, lowest, runtime_files

CHUNK = 1 << 18
MAGIC = 6
# zstd refuses windows of more than 128 MiB without --long.
ZSTD = ["zstd", "--decompress", "--stdout", "--quiet", "--long=31"]
# The first bytes of gzip (RFC 1952), xz, bzip2, lz4 and zstd (RFC 8878), and their decompressors.
# zstd files may begin with frames that are skipped, which have sixteen magic numbers; pzstd writes
# such frames.
DECOMPRESSORS = {
    b"\x1f\x8b": ["gzip", "--decompress", "--stdout"],
    b"\xfd7zXZ\x00": ["xz", "--decompress", "--stdout"],
    b"BZh": ["bzip2", "--decompress", "--stdout"],
    b"\x04\x22\x4d\x18": ["lz4", "--decompress", "--stdout", "--quiet"],
    b"\x28\xb5\x2f\xfd": ZSTD,
    **{bytes([0x50 + number]) + b"\x2a\x4d\x18": ZSTD for number in range(16)},
}
# The bytes of os-release that are read. A real file has a few hundred.
OS_RELEASE_LIMIT = 1 << 16


def unpack(stream: IO[bytes], root: Path) -> tuple[int, str]:
    """Unpacks a tar stream, plain or compressed, into `root`. Returns its size and SHA-256.

    It reads and hashes the whole stream, although tar stops at the end-of-archive marker. GNU tar
    strips leading slashes, refuses "..", and creates links after everything else, so that no member
    lands outside `root`. Raises StageError when tar refuses the archive, and EnvironmentFailed when
    the disk is full.
    """
    received = _Received(stream)
    head = received.read(MAGIC)
    argv = ["tar", "--extract", "--file=-", f"--directory={root}", TAR_RECORDS]
    argv += ["--numeric-owner", "--same-permissions", "--xattrs", "--xattrs-include=*"]
    argv += ["--delay-directory-restore", "--warning=no-timestamp", "--warning=no-unknown-keyword"]
    # A file for the messages: a pipe would fill up when tar prints one for each member, and both
    # processes would wait forever.
    with tempfile.TemporaryFile() as complaints, ExitStack() as programs:

        def started(argv: list[str], output: int | IO[bytes]) -> subprocess.Popen[bytes]:
            program = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=output, stderr=complaints, pipesize=PIPE_BYTES
            )
            return programs.enter_context(program)

        tar = started(argv, subprocess.DEVNULL)
        last = tar
        assert tar.stdin is not None
        if decompressor := _decompressor(head):
            # Start the decompressor here: tar copies the data twice more for one that it starts.
            with tar.stdin as sink:
                last = started(decompressor, sink)
        _feed(head, received, cast(IO[bytes], last.stdin), [])
        status = tar.wait(300)
        if last is not tar and status == 0:
            # A negative status is SIGPIPE: tar stopped reading at the end-of-archive marker.
            status = max(0, last.wait(300))
        complaints.seek(0)
        complaint = complaints.read(65536).decode("utf-8", "replace")
    if status != 0:
        kind = EnvironmentFailed if "No space left" in complaint else StageError
        raise kind(
            f"tar cannot unpack the base tarball (status {status})",
            hint="Give the scratch disk more room with --scratch-size."
            if kind is EnvironmentFailed
            else "Check the file with 'tar -tf'.",
            tail=complaint.splitlines(),
        )
    return received.size, received.digest.hexdigest()


def unpack_image(stream: IO[bytes], root: Path) -> tuple[int, str]:
    """Unpacks a container image into `root`. Returns the size and SHA-256 of the whole stream.

    The stream is a line with a `wire.ImageHeader`, and then the blobs of its layers in order.
    Raises StageError when a layer cannot be applied or does not match its digest.
    """
    received = _Received(stream)
    image = decode(wire.ImageHeader, json.loads(received.line(wire.IMAGE_LIMIT)))
    for number, layer in enumerate(image.layers, start=1):
        blob = _Blob(received, layer.size)
        with _plain(blob, f"layer {number} of the image") as archive:
            apply = lowest.apply if number == 1 else layers.apply
            apply(cast(IO[bytes], archive), root)
        if f"sha256:{archive.digest.hexdigest()}" != layer.diff_id:
            raise StageError(
                f"layer {number} of the image does not match the digest in its configuration",
                hint="The image is damaged or was made wrongly. Make or download it again.",
            )
    return received.size, received.digest.hexdigest()


class _Received:
    """A stream that counts and hashes what is read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.size = 0
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        return self._count(self._stream.read(size))

    def line(self, limit: int) -> bytes:
        return self._count(self._stream.readline(limit))

    def _count(self, data: bytes) -> bytes:
        self.size += len(data)
        self.digest.update(data)
        return data


class _Blob:
    """The next `size` bytes of a stream. Raises StageError when the stream ends earlier."""

    def __init__(self, stream: _Received, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left))
        if not data and size and self._left:
            raise StageError("the stream of the image ends within a layer")
        self._left -= len(data)
        return data


@contextmanager
def _plain(blob: _Blob, what: str) -> Iterator[_Received]:
    """Decompresses a blob (see DECOMPRESSORS; or none). Reads the blob to its end in any case."""
    head = blob.read(MAGIC)
    program = _decompressor(head) or ["cat"]
    with subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pipesize=PIPE_BYTES,
    ) as decompressor:
        assert decompressor.stdin and decompressor.stdout and decompressor.stderr
        failures: list[StageError] = []
        feeder = threading.Thread(target=_feed, args=(head, blob, decompressor.stdin, failures))
        feeder.start()
        try:
            yield _Received(decompressor.stdout)
        finally:
            # Closing the pipe ends the decompressor. The feeder reads the rest of the blob.
            decompressor.stdout.close()
            feeder.join()
            complaint = decompressor.stderr.read(65536).decode("utf-8", "replace")
            status = decompressor.wait(300)
            if failures:
                raise failures[0]
            if status > 0:
                raise StageError(f"{what} cannot be decompressed", tail=complaint.splitlines())


def _decompressor(head: bytes) -> list[str] | None:
    """The decompressor for a stream with these first bytes; None when it is not compressed."""
    return next((p for magic, p in DECOMPRESSORS.items() if head.startswith(magic)), None)


def _feed(
    head: bytes, blob: _Blob | _Received, sink: IO[bytes], failures: list[StageError]
) -> None:
    alive = True
    chunk = head
    try:
        while chunk:
            if alive:
                try:
                    sink.write(chunk)
                except BrokenPipeError:
                    alive = False
            chunk = blob.read(CHUNK)
    except StageError as error:
        failures.append(error)
    finally:
        with suppress(BrokenPipeError):
            sink.close()


def accept_base(root: Path) -> Iterator[str]:
    """Checks an unpacked base, removes what does not belong to it, and yields notes.

    Raises StageError as `check_base` does.
    """
    yield from bootable_image.notes(root)
    check_base(root)
    yield from runtime_files.notes(root)


def check_base(root: Path) -> None:
    """Raises StageError unless `root` is a root file system of a Debian-like system with apt."""
    if not (root / "etc").is_dir() or not (root / "usr").is_dir():
        raise StageError(
            "the base holds no root file system: /etc and /usr are missing",
            hint="A tar archive must have the root directory itself at its top.",
        )
    system = _os_release(root)
    kinds = [system.get("ID", ""), *system.get("ID_LIKE", "").split()]
    if "debian" not in kinds:
        found = system.get("PRETTY_NAME") or system.get("ID") or "a system without /etc/os-release"
        raise StageError(
            f"the base is no Debian, nor like one: {found[:100]}",
            hint="Use a base whose /etc/os-release has ID=debian, or debian in ID_LIKE.",
        )
    if not resolve(root, "/usr/bin/apt-get").is_file():
        raise StageError(
            "the base has no apt: there is no /usr/bin/apt-get",
            hint="Use a base that contains it, such as the images of Debian and Ubuntu.",
        )


def _os_release(root: Path) -> dict[str, str]:
    """The variables of os-release(5); empty when there is no such file."""
    for name in ("/etc/os-release", "/usr/lib/os-release"):
        place = resolve(root, name)
        if place.is_file():
            with place.open("rb") as file:
                lines = file.read(OS_RELEASE_LIMIT).decode("utf-8", "replace").splitlines()
            pairs = (line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
            return {key.strip(): value.strip().strip("\"'") for key, value in pairs}
    return {}

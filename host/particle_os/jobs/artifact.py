"""The finished disk: taken over from the guest, verified, converted, published."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from itertools import chain
from pathlib import Path

from particle_agent.stages.output.qemu import Format

from particle_os.errors import InfrastructureError
from particle_os.system import process
from particle_os.system.checksum import Checksums, of_one_reading, tree_crc32
from particle_os.system.deadline import Deadline
from particle_os.system.interrupt import held_back
from particle_os.vm.argv import ImageFormat

SUMS = "SHA256SUMS"
CHUNK = 1 << 20
ANOTHER = "the disk was written to after the guest said that it was complete: the checksums differ"
# What QEMU calls a format, and how it is to write one (qemu-img(1), docs/system/images).
DRIVERS: dict[Format, ImageFormat] = {
    "raw": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vhd": "vpc",
}
OPTIONS: dict[Format, str] = {
    "qcow2": "lazy_refcounts=off",
    # What an OVF template holds; compressed, and written in one pass.
    "vmdk": "subformat=streamOptimized",
    # Otherwise the size becomes one that has a geometry of cylinders and heads.
    "vhd": "subformat=dynamic,force_size=on",
}


def checksums(path: Path, size: int | None = None) -> Future[Checksums]:
    """The checksums of a file, computed while the caller goes on; a program's end awaits no more.

    Of a disk that the guest still has open, `size` is what it says that it has written, and
    `receive` tells whether they stay right.
    """
    found: Future[Checksums] = Future()

    def compute() -> None:
        try:
            found.set_result(of_one_reading(path, path.stat().st_size if size is None else size))
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=compute, daemon=True).start()
    return found


def receive(path: Path, size: int, early: Future[Checksums]) -> Future[Checksums]:
    """Cuts the guest's disk to its size once the guest has gone; nothing is copied.

    Returns the `early` checksums, or else an InfrastructureError when the guest has written more
    since they were begun.
    """
    os.truncate(path, size)
    now = tree_crc32(path, size)
    checked: Future[Checksums] = Future()

    def check(done: Future[Checksums]) -> None:
        try:
            if done.result().tree_crc32 != now:
                raise InfrastructureError(ANOTHER)
            checked.set_result(done.result())
        except Exception as error:
            checked.set_exception(error)

    early.add_done_callback(check)
    return checked


def convert(
    raw: Path, target: Path, image_format: Format, deadline: Deadline, *, compressed: bool = False
) -> None:
    """Makes an image of a raw disk, and reads it back: it holds the same, or this raises.

    The raw disk is opened as raw, whatever it contains. `compressed` is for qcow2. Raises
    InfrastructureError when the image cannot be made, or is another one.
    """
    driver = DRIVERS[image_format]
    options = OPTIONS.get(image_format, "")
    argv = ["qemu-img", "convert", "-f", "raw", "-O", driver]
    if compressed:
        options += ",compression_type=zstd"
        argv.append("-c")
    if options:
        argv += ["-o", options]
    if image_format == "qcow2":
        argv += ["-W", "-m", "4"]
    process.run(
        [*argv, str(raw), str(target)], deadline=deadline, what=f"converting to {image_format}"
    )
    process.run(
        ["qemu-img", "compare", "-f", "raw", "-F", driver, str(raw), str(target)],
        deadline=deadline,
        what=f"comparing the {image_format} image with the raw disk",
    )


def compress(raw: Path, target: Path, sha256: str, deadline: Deadline) -> None:
    """Compresses a raw disk with zstd, and reads it back: it has this SHA-256, or this raises.

    Raises InfrastructureError when it cannot be done, or the file holds something else.
    """
    argv = ["zstd", "--quiet", "-T0", "-o", str(target), str(raw)]
    process.run(argv, deadline=deadline, what="compressing the raw disk")
    digest = hashlib.sha256()
    # Its complaints are not part of the disk; what it has read shows in the checksum.
    with process.started(
        ["zstd", "--decompress", "--stdout", "--quiet", str(target)], stderr=subprocess.DEVNULL
    ) as reader:
        assert reader.stdout is not None
        while chunk := reader.stdout.read(CHUNK):
            digest.update(chunk)
            deadline.remaining()
    if digest.hexdigest() != sha256:
        raise InfrastructureError(f"{target.name} is not what was compressed: the checksums differ")


def publish(
    files: Iterable[Path], directory: Path, sums: Mapping[str, str], folders: Iterable[Path] = ()
) -> None:
    """Moves finished files into `directory`, on the same file system, one rename each.

    Every file's content is on the disk before any name appears; the names are before this
    returns. A reader sees the old file or the new one. `sums` (name to SHA-256), if there are any,
    go into SHA256SUMS, whose lines about other images stay. `folders` are moved, too, each in two
    renames, so that there is none for a moment; one that does not exist takes the old one away.
    Two publishers take turns.
    """
    files, folders = list(files), list(folders)
    for path in chain(files, *(folder.rglob("*") for folder in folders)):
        _sync(path)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with held_back():
            for folder in folders:
                _replace_folder(directory / folder.name, folder)
            for path in files:
                path.replace(directory / path.name)
            if sums:
                _write_sums(directory / SUMS, files[0].parent / SUMS, sums)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_folder(place: Path, folder: Path) -> None:
    if place.exists():
        # It goes away with the directory that the new one was made in.
        place.rename(folder.with_name(f"{folder.name}.old"))
    if folder.exists():
        folder.replace(place)


def _write_sums(place: Path, temporary: Path, sums: Mapping[str, str]) -> None:
    """SHA256SUMS as sha256sum(1) writes and checks it."""
    lines = {}
    if place.exists():
        for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
            digest, _, name = line.partition("  ")
            if name and (place.parent / name).exists():
                lines[name] = digest
    lines.update(sums)
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{digest}  {name}\n" for name, digest in sorted(lines.items()))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(place)

"""Receives the finished disk from the guest, converts it and compresses it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, wait
from pathlib import Path

from particle_agent.stages.output.qemu import Format

from particle_os.errors import DeadlineExceeded, InfrastructureError, ParticleError
from particle_os.system import process
from particle_os.system.checksum import Checksums, of_one_reading, tree_sha256, unpacked_sha256
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.vm.argv import ImageFormat, image_options
from particle_os.vm.image_format import foreign_format, image_format

CHANGED = (
    "the guest wrote to the disk after it had declared the disk complete: the checksums differ"
)
# QEMU's name of each format, and its options (qemu-img(1), docs/system/images).
DRIVERS: dict[Format, ImageFormat] = {
    "raw": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vhd": "vpc",
}
OPTIONS: dict[Format, str] = {
    "qcow2": "lazy_refcounts=off",
    # The kind of VMDK that an OVF template holds; it is compressed, and written in one pass.
    "vmdk": "subformat=streamOptimized",
    # Without force_size, QEMU rounds the size up to a geometry of cylinders and heads.
    "vhd": "subformat=dynamic,force_size=on",
}


def checksums(
    path: Path, size: int | None = None, deadline: Deadline | None = None
) -> Future[Checksums]:
    """The checksums of a file, computed in a thread that does not delay the end of the program.

    `size` is the number of bytes to read; by default the whole file is read. While the guest still
    has the disk open, it is the size that the guest reports, and `receive` verifies the checksums.
    """
    found: Future[Checksums] = Future()

    def compute() -> None:
        try:
            whole = path.stat().st_size if size is None else size
            found.set_result(of_one_reading(path, whole, deadline))
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=compute, daemon=True).start()
    return found


def settled(found: Future[Checksums], deadline: Deadline) -> Checksums:
    """Waits for checksums. Raises what their computation does, and DeadlineExceeded."""
    if not found.done():
        wait([found], timeout=deadline.remaining())
    if not found.done():
        raise DeadlineExceeded(f"{deadline.what} took longer than {deadline.seconds:.0f} s")
    return found.result()


def receive(
    path: Path, size: int, early: Future[Checksums], deadline: Deadline | None = None
) -> Future[Checksums]:
    """Truncates the guest's disk to `size` bytes, once the VM has ended.

    Returns the `early` checksums. The future raises InfrastructureError when the guest has written
    to the disk since their computation began.
    """
    os.truncate(path, size)
    now = tree_sha256(path, size, deadline)
    checked: Future[Checksums] = Future()

    def check(done: Future[Checksums]) -> None:
        try:
            if done.result().tree_sha256 != now:
                raise InfrastructureError(CHANGED)
            checked.set_result(done.result())
        except Exception as error:
            checked.set_exception(error)

    early.add_done_callback(check)
    return checked


def check_raw(disk: Path) -> None:
    """Raises InfrastructureError for a raw disk that other programs take for another format.

    They would open the files that it names.
    """
    if (found := foreign_format(disk)) is not None:
        raise InfrastructureError(
            f"the guest wrote a disk that begins or ends as an image of the format {found} does",
            hint="A stage or a package writes over the partition table. Look for it in the log.",
        )


def check_format(path: Path, name: str, kind: str) -> None:
    """Raises InfrastructureError for the image `name` of another machine unless it is of `kind`.

    An image that names other files, or that programs take for one of another format, is none.
    """
    try:
        if kind == "raw":
            check_raw(path)
        else:
            image_format(path, kind)
    except ParticleError as error:
        raise InfrastructureError(
            f"{name} is no image of its format: {error.brief}",
            hint="Build again, and find out who can change the images of that machine.",
        ) from error


def convert(
    raw: Path, target: Path, image_format: Format, deadline: Deadline, *, compressed: bool = False
) -> None:
    """Converts a raw disk to an image, reads the image back, and compares it with the disk.

    The raw disk is opened as raw, whatever it contains. `compressed` is for qcow2. Raises
    InfrastructureError when qemu-img fails, or the image differs from the disk.
    """
    driver = DRIVERS[image_format]
    options = OPTIONS.get(image_format, "")
    source = image_options(raw, "raw")
    argv: list[str | Path] = ["qemu-img", "convert", "--image-opts", "-O", driver]
    if compressed:
        options += ",compression_type=zstd"
        argv.append("-c")
    if options:
        argv += ["-o", options]
    if image_format == "qcow2":
        argv += ["-W", "-m", "4"]
    process.run(
        [*argv, source, target],
        deadline=deadline,
        what=f"converting to {image_format}",
        within=Confinement(reads=(raw,), writes=(target.parent,)),
    )
    process.run(
        ["qemu-img", "compare", "--image-opts", source, image_options(target, driver)],
        deadline=deadline,
        what=f"comparing the {image_format} image with the raw disk",
        within=Confinement(reads=(raw, target)),
    )


def compress(raw: Path, target: Path, sha256: str, deadline: Deadline) -> None:
    """Compresses a raw disk with zstd, reads the file back, and compares it with `sha256`.

    Raises InfrastructureError when zstd fails, or the file's content differs from the disk.
    """
    argv: list[str | Path] = ["zstd", "--quiet", "-T0", "-o", target, raw]
    within = Confinement(reads=(raw,), writes=(target.parent,))
    process.run(argv, deadline=deadline, what="compressing the raw disk", within=within)
    unpack: list[str | Path] = ["zstd", "--decompress", "--stdout", "--quiet", target]
    if unpacked_sha256(unpack, target, deadline) != sha256:
        raise InfrastructureError(f"{target.name} differs from the raw disk: the checksums differ")

"""Makes qcow2 files: empty disks, overlays over an image, and copies of overlays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from particle_os.errors import DeadlineExceeded, InfrastructureError
from particle_os.system import process
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.vm.argv import Disk, ImageFormat, blockdev, image_options

SECONDS = 30.0
DESCRIPTION_BYTES = 1 << 20


def make_disk(path: Path, size: int, deadline: Deadline, *, what: str) -> None:
    """Makes an empty disk of `size` bytes; `what` names the step in an error.

    Raises InfrastructureError when qemu-img fails, DeadlineExceeded when qemu-img takes too long.
    """
    path.touch(mode=0o600)
    _create([], [path, str(size)], deadline, what, Confinement(writes=(path,)))


def make_overlay(path: Path, image: Path, image_format: ImageFormat, deadline: Deadline) -> None:
    """Makes an overlay over `image`, which is never written; a failure leaves no file behind.

    Only the user can read the overlay. Raises FileExistsError when `path` exists,
    InfrastructureError when qemu-img fails, DeadlineExceeded when qemu-img takes too long.
    """
    path.touch(mode=0o600, exist_ok=False)
    # Without a format, QEMU would guess, and a raw image could pose as a qcow2 image that names any
    # file of the host. QEMU resolves a relative path from the overlay's directory.
    backing = ["-F", image_format, "-b", image.resolve()]
    try:
        within = Confinement(reads=(image.resolve(),), writes=(path,))
        _create(backing, [path], deadline, "making the overlay", within)
    except BaseException:
        path.unlink()
        raise


def copy_disk(disk: Disk, copy: Path, deadline: Deadline, *, what: str) -> None:
    """Copies a disk and its backing files into one qcow2 file; no machine may write to the disk.

    Raises InfrastructureError when qemu-img fails, DeadlineExceeded when qemu-img takes too long.
    """
    chain = json.dumps(blockdev(replace(disk, read_only=True), "copied"))
    argv = ["qemu-img", "convert", "-O", "qcow2", f"json:{chain}"]
    copy.touch(mode=0o600)
    image = (disk.image.path,) if disk.image is not None else ()
    within = Confinement(reads=(disk.path, *(disk.backing or ()), *image), writes=(copy,))
    process.run([*argv, copy], deadline=deadline, what=what, within=within)


def described(path: Path, deadline: Deadline) -> dict[str, Any]:
    """Returns the output of `qemu-img info` about a qcow2 file; empty for any other file."""
    try:
        output = process.capture(
            ["qemu-img", "info", "--force-share", "--output=json", "--image-opts"]
            + [image_options(path, "qcow2")],
            deadline=deadline.sooner(30, "looking at the overlay"),
            what="looking at the overlay",
            limit=DESCRIPTION_BYTES,
            within=Confinement(reads=(path,)),
        )
    except DeadlineExceeded:
        raise
    except InfrastructureError:
        return {}
    found: dict[str, Any] = json.loads(output)
    return found


def _create(
    options: Sequence[str | Path],
    operands: Sequence[str | Path],
    deadline: Deadline,
    what: str,
    within: Confinement,
) -> None:
    process.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", *options, *operands],
        deadline=deadline.sooner(SECONDS, what),
        what=what,
        within=within,
    )

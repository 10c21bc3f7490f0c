"""Makes the file that a cloud or a hypervisor imports from an image."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from particle_os.errors import InfrastructureError
from particle_os.publishing.gpt import move_second_table
from particle_os.publishing.platforms import ImportRules
from particle_os.report.progress import Progress
from particle_os.system import process, publication
from particle_os.system.checksum import file_sha256, unpacked_sha256
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.publication import Change
from particle_os.system.workspace import Workspace, allocated_bytes, need_room
from particle_os.vm.argv import ImageFormat, image_options

SECONDS = 3600.0
DESCRIPTION_BYTES = 1 << 20
# The only name that Google Compute Engine takes.
MEMBER = "disk.raw"


@dataclass(frozen=True)
class Exported:
    """The file for a platform; sizes in bytes. `command` imports it."""

    path: Path
    bytes: int
    virtual_bytes: int
    sha256: str
    command: str


def export(
    image: Path,
    driver: ImageFormat,
    platform: ImportRules,
    output: Path,
    progress: Progress,
    work: Workspace,
) -> Exported:
    """Makes NAME.ENDING in the directory `output`, with its sum in SHA256SUMS.

    The image is not changed. Raises InfrastructureError, NotEnoughSpace, NotPublished, UsageError.
    """
    deadline = Deadline.after(SECONDS, f"the export for {platform.title}")
    staging = work.adopt_directory(output)
    name = image.name.partition(".")[0]
    made = staging / f"{name}.{platform.ending}"
    need_room(staging, 2 * allocated_bytes(image), f"the file for {platform.title}")
    size = _size(image, driver, deadline)
    wanted = -(-size // platform.unit) * platform.unit
    if wanted > size:
        progress.note(
            f"the disk grows from {size} to {wanted} bytes: a multiple of {platform.unit}"
        )
    with progress.phase(f"export for {platform.title}"):
        if wanted > size or platform.kind in ("raw", "tar"):
            raw = staging / MEMBER
            _convert(image, driver, raw, "raw", (), deadline)
            os.truncate(raw, wanted)
            if wanted > size:
                move_second_table(raw)
            image, driver = raw, "raw"
        _write(image, driver, made, platform, deadline)
    with progress.phase("checksum"):
        sha256 = file_sha256(made)
    bytes_ = made.stat().st_size
    publication.publish(staging, output, Change([made.name], sums={made.name: sha256}))
    place = output / made.name
    command = platform.command.format(file=shlex.quote(str(place)), name=shlex.quote(name))
    return Exported(place, bytes_, wanted, sha256, command)


def _write(
    image: Path, driver: ImageFormat, made: Path, platform: ImportRules, deadline: Deadline
) -> None:
    if platform.kind == "raw":
        image.rename(made)
    elif platform.kind == "tar":
        _pack(image, made, deadline)
    else:
        more = [*(["-c"] if platform.compressed else [])]
        for option in platform.options:
            more += ["-o", option]
        _convert(image, driver, made, platform.kind, more, deadline)


def _pack(raw: Path, made: Path, deadline: Deadline) -> None:
    """Packs the disk as a sparse member of a GNU archive: other forms are refused."""
    owner = ("--owner=0", "--group=0", "--numeric-owner", "--mode=0644", "--mtime=@0")
    argv = ["tar", "--format=oldgnu", "--sparse", "--gzip", *owner, "--create"]
    within = Confinement(reads=(raw,), writes=(made.parent,))
    where = ["--file", str(made), "--directory", str(raw.parent), raw.name]
    process.run([*argv, *where], deadline=deadline, what="packing the disk", within=within)
    unpack: list[str | Path] = ["tar", "--extract", "--gzip", "--to-stdout", "--file", made]
    if unpacked_sha256(unpack, made, deadline) != file_sha256(raw):
        raise InfrastructureError(f"the disk in {made.name} differs from the image")


def _convert(
    image: Path,
    driver: ImageFormat,
    made: Path,
    kind: ImageFormat,
    more: list[str] | tuple[str, ...],
    deadline: Deadline,
) -> None:
    """Converts an image, reads the made file back, and compares the disks in both."""
    source = image_options(image, driver)
    process.run(
        ["qemu-img", "convert", "--image-opts", "-O", kind, *more, source, made],
        deadline=deadline,
        what=f"converting to {kind}",
        within=Confinement(reads=(image,), writes=(made.parent,)),
    )
    process.run(
        ["qemu-img", "compare", "--image-opts", source, image_options(made, kind)],
        deadline=deadline,
        what=f"comparing the {kind} file with the image",
        within=Confinement(reads=(image, made)),
    )


def _size(image: Path, driver: ImageFormat, deadline: Deadline) -> int:
    """The size of the disk in an image."""
    output = process.capture(
        ["qemu-img", "info", "--output=json", "--image-opts", image_options(image, driver)],
        deadline=deadline,
        what="looking at the image",
        limit=DESCRIPTION_BYTES,
        within=Confinement(reads=(image,)),
    )
    found: int = json.loads(output)["virtual-size"]
    return found

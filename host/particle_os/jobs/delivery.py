"""The files of a build in the output directory: images and result, or evidence of a failure."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import pydantic
from particle_agent.stages.output.qemu import Format, Qemu

from particle_os.errors import InfrastructureError, ParticleError, UsageError
from particle_os.jobs import artifact
from particle_os.jobs.artifact import checksums
from particle_os.jobs.plan import Plan
from particle_os.report.charts import build_seconds
from particle_os.report.progress import Progress
from particle_os.report.results import ENDINGS, ArtifactFormat, ArtifactResult, Result, read_result
from particle_os.system import publication
from particle_os.system.checksum import Checksums, tree_sha256
from particle_os.system.deadline import Deadline
from particle_os.system.publication import Change
from particle_os.system.workspace import allocated_bytes, failed_call, need_room
from particle_os.vm.argv import ImageFormat

# The files beside images, by the names of their output disks: their endings and formats.
OTHERS: dict[str, tuple[str, ArtifactFormat]] = {
    "repository": ("ostree.tar", "ostree-repository"),
    "key": ("ostree.gpg", "gpg-key"),
    "delta": ("delta", "ostree-delta"),
    "oci-archive": ("oci.tar", "oci-archive"),
}
OTHER_ENDINGS = tuple(ending for ending, _ in OTHERS.values())


@dataclass(frozen=True)
class ImageFile:
    """A finished image file, and its checksums, which may still be under way; sizes in bytes."""

    path: str
    format: ArtifactFormat
    compression: Literal["zstd"] | None
    bytes: int
    virtual_bytes: int
    allocated_bytes: int
    checksums: Future[Checksums]

    @property
    def driver(self) -> ImageFormat:
        """QEMU's name of the format of an image."""
        return next(driver for kind, driver in artifact.DRIVERS.items() if kind == self.format)

    def result(self, deadline: Deadline) -> ArtifactResult:
        """Waits for the checksums.

        Raises OSError when the file cannot be read, InfrastructureError when `artifact.receive` has
        found a change, and DeadlineExceeded.
        """
        known = {name: value for name, value in vars(self).items() if name != "checksums"}
        sums = artifact.settled(self.checksums, deadline)
        return ArtifactResult(**known, sha256=sums.sha256, tree_sha256=sums.tree_sha256)


class Delivery:
    """The files of one build, in the hidden directory `staging` inside the directory `output`."""

    def __init__(self, name: str, staging: Path, output: Path) -> None:
        self.name = name
        self.staging = staging
        self.output = output
        self.images: list[ImageFile] = []
        # The files beside images.
        self.others: list[ImageFile] = []

    def file(self, ending: str) -> Path:
        """The file NAME.`ending` before it is published."""
        return self.staging / f"{self.name}.{ending}"

    def add(
        self,
        image_format: Format,
        virtual: int,
        compression: Literal["zstd"] | None = None,
        sums: Future[Checksums] | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        """Adds a finished image of a disk of `virtual` bytes; nothing may write to it from now on.

        Without `sums`, the computation of its checksums begins. Raises InfrastructureError for a
        raw disk that could be taken for an image of another format.
        """
        path = self.file(f"{image_format}.zst" if compression else image_format)
        if image_format == "raw" and compression is None:
            artifact.check_raw(path)
        self.images.append(
            ImageFile(
                path=path.name,
                format=image_format,
                compression=compression,
                bytes=path.stat().st_size,
                virtual_bytes=virtual,
                allocated_bytes=allocated_bytes(path),
                checksums=sums or checksums(path, deadline=deadline),
            )
        )

    def more_outputs(self, names: Iterable[str]) -> dict[str, Path]:
        """The files of output disks for what is published beside images."""
        return {name: self.file(OTHERS[name][0]) for name in names}

    def add_other(self, name: str, size: int, sums: Future[Checksums]) -> None:
        """Adds the content of an output disk, of `size` bytes, that is no image."""
        ending, kind = OTHERS[name]
        path = self.file(ending)
        self.others.append(
            ImageFile(
                path=path.name,
                format=kind,
                compression=None,
                bytes=size,
                virtual_bytes=size,
                allocated_bytes=allocated_bytes(path),
                checksums=sums,
            )
        )

    def check_room(self, disk: Qemu, unpacked: int) -> None:
        """Raises NotEnoughSpace unless the images have room, each as large as the system."""
        images = {"raw", *disk.formats}
        need_room(self.staging, len(images) * unpacked, "the images")

    def convert(self, disk: Qemu, progress: Progress, deadline: Deadline) -> None:
        """Converts the raw disk to the formats of `disk`; keeps it only if raw is one of them."""
        raw = self.file("raw")
        for image_format in disk.formats:
            if image_format == "raw":
                continue
            need_room(raw.parent, allocated_bytes(raw), f"the {image_format} image")
            with progress.phase(f"convert to {image_format}"):
                compressed = image_format == "qcow2" and disk.compress == "zstd"
                target = self.file(image_format)
                artifact.convert(raw, target, image_format, deadline, compressed=compressed)
                self.add(image_format, raw.stat().st_size, deadline=deadline)
        if "raw" not in disk.formats:
            self.drop("raw")

    def compress(self, disk: Qemu, progress: Progress, deadline: Deadline) -> None:
        """Replaces the raw image by a compressed image if `disk` asks for compression."""
        if disk.compress == "none" or "raw" not in disk.formats:
            return
        raw = self.file("raw")
        need_room(raw.parent, allocated_bytes(raw), "the compressed image")
        with progress.phase("compress raw"):
            sha256 = self.images[0].result(deadline).sha256
            artifact.compress(raw, self.file("raw.zst"), sha256, deadline)
            self.add("raw", raw.stat().st_size, "zstd", deadline=deadline)
            self.drop("raw")

    @property
    def files(self) -> tuple[ImageFile, ...]:
        """The images, and the files beside them."""
        return (*self.images, *self.others)

    def artifacts(self, deadline: Deadline) -> tuple[ArtifactResult, ...]:
        """The results of all files; waits for their checksums."""
        return tuple(file.result(deadline) for file in self.files)

    def drop(self, image_format: Format) -> None:
        """Removes an image that the recipe does not ask for."""
        self.file(image_format).unlink()
        self.images = [i for i in self.images if i.path != self.file(image_format).name]

    @property
    def evidence(self) -> Path:
        """The evidence of the boot tests: a directory with a subdirectory for each firmware."""
        return self.file("evidence")

    @property
    def failed_directory(self) -> Path:
        return self.output / f"{self.name}.failed"

    def write(self, result: Result, report: str) -> None:
        """Writes the result as JSON, and the HTML page `report`."""
        self.file("report.html").write_text(report, encoding="utf-8")
        self.file("result.json").write_text(result.model_dump_json(indent=2) + "\n")

    def publish(self, result: Result) -> None:
        """Moves all files to the output directory; removes evidence of an earlier failure.

        Raises NotPublished.
        """
        has_evidence = self.evidence.exists()
        removed = [self.failed_directory.name, *([] if has_evidence else [self.evidence.name])]
        change = Change(
            files=[a.path for a in result.artifacts] + [self.file(e).name for e in ENDINGS],
            folders=[self.evidence.name] if has_evidence else [],
            removed=removed,
            # An image of an earlier build is not part of the new set.
            outdated=sorted(set(image_names(self.name)) - {a.path for a in result.artifacts}),
            sums={a.path: a.sha256 for a in result.artifacts},
        )
        publication.publish(self.staging, self.output, change)

    def keep_evidence(self, images: Sequence[str]) -> Path:
        """Moves logs, result, evidence and the files `images` to a new NAME.failed.

        Returns the path of the log. Raises OSError. If a file that is no directory has the name,
        the directory gets another one.
        """
        made = self.staging / "failed"
        made.mkdir()
        endings = ("evidence", *ENDINGS)
        for name in (*(f"{self.name}.{ending}" for ending in endings), *images):
            if (self.staging / name).exists():
                (self.staging / name).rename(made / name)
        place = self.failed_directory
        if place.is_dir() and not place.is_symlink():
            place.rename(self.staging / "failed.old")
        try:
            made.rename(place)
        except OSError:
            place = place.with_name(f"{place.name}-{secrets.token_hex(4)}")
            made.rename(place)
        return place / f"{self.name}.log"


def image_names(name: str) -> list[str]:
    """All names that the images of a recipe can have."""
    return [f"{name}.{ending}" for ending in (*artifact.DRIVERS, "raw.zst", *OTHER_ENDINGS)]


def output_vanished(error: ParticleError | OSError, output: Path) -> InfrastructureError:
    """The error for a build whose files in the directory `output` are gone; `error` was first."""
    return InfrastructureError(
        f"the hidden directory of this build in {output} was removed while the build ran",
        hint="Build again, and leave the output directory as it is until the build ends.",
        tail=[(failed_call(error) if isinstance(error, OSError) else error).brief],
    )


def prepare_output(plan: Plan, note: Callable[[str], None]) -> None:
    """Finishes a publication that was interrupted, so that the next one can succeed.

    Raises UsageError when a file of another kind has a name that the build needs, and NotPublished
    when the publication cannot be finished.
    """
    output, name = plan.options.output_directory, plan.name
    if publication.finish(output):
        note(f"finished an interrupted publication in {output}")
    made = [path.name for path in _written_files(plan)]
    change = Change(made, folders=[f"{name}.evidence"], removed=[f"{name}.failed"], sums={})
    if (found := publication.obstacle(output, change)) is not None:
        raise UsageError(found, hint="Move it away, or name another directory with --output.")


def touched_files(plan: Plan) -> list[Path]:
    """The files that a build reads, and the files that it leaves."""
    attached = chain.from_iterable(plan.loaded.attachments)
    read = [*plan.loaded.files, *(attachment.path for attachment in attached)]
    if plan.base is not None:
        read += plan.base.files
    return [*read, *_written_files(plan)]


def _written_files(plan: Plan) -> list[Path]:
    endings = (*plan.loaded.formats, "raw.zst", *OTHER_ENDINGS, *ENDINGS)
    return [plan.options.output_directory / f"{plan.name}.{ending}" for ending in endings]


def results(output: Path) -> list[Result]:
    """The results of the builds whose images are in the directory `output`, the newest first."""
    found = []
    for path in output.glob("*.result.json"):
        try:
            result = read_result(path)
        except (OSError, pydantic.ValidationError):
            continue
        if result.artifacts and all((output / a.path).exists() for a in result.artifacts):
            found.append(result)
    return sorted(found, key=lambda result: result.created, reverse=True)


def last_time(plan: Plan) -> float | None:
    """The seconds that the last build of the recipe took; None when its result is gone."""
    try:
        result = read_result(plan.options.output_directory / f"{plan.name}.result.json")
    except (OSError, pydantic.ValidationError):
        return None
    return build_seconds(result)


def already_there(plan: Plan, note: Callable[[str], None]) -> Result | None:
    """The result of an earlier build that makes the build of this plan unnecessary, or None.

    `note` learns of images that are no longer whole.
    """
    if plan.base is None or plan.helper is None or plan.refresh_from < len(plan.stages):
        return None
    key = plan.build_key(plan.base, plan.helper)
    found = published(plan.name, plan.options.output_directory, key, note)
    if found is None or (plan.boots and found.status != "passed"):
        return None
    age = found.network_age(stage.asks_network for stage in plan.stages)
    return None if age > plan.options.max_age else found


def published(
    name: str, output: Path, build_key: str, note: Callable[[str], None]
) -> Result | None:
    """The result of the earlier build with `build_key`; None unless all its images are intact."""
    try:
        result = read_result(output / f"{name}.result.json")
    except (OSError, pydantic.ValidationError):
        return None
    if result.build_key != build_key or result.status not in ("passed", "not-tested"):
        return None
    for image in result.artifacts:
        if not _is_intact(image, output):
            note(f"{output / image.path} is damaged, changed or gone; it is built again")
            return None
    return result


def check_format(image: ArtifactResult, path: Path) -> None:
    """Raises InfrastructureError for an image of another machine that is not of its format."""
    if image.is_image and image.compression is None:
        artifact.check_format(path, image.path, image.format)


def _is_intact(image: ArtifactResult, output: Path) -> bool:
    path = output / image.path
    try:
        whole = path.stat().st_size == image.bytes
        return whole and tree_sha256(path, image.bytes) == image.tree_sha256
    except OSError:
        return False

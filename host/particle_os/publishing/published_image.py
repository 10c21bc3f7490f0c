"""Finds the image that a user names, and what its result says about these bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydantic

from particle_os.boot import contents
from particle_os.errors import NotBooted, UsageError, printable
from particle_os.report.pages import is_inert
from particle_os.report.results import RESULT_LIMIT, ArtifactFormat, ArtifactResult, Result
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular, read_regular
from particle_os.system.workspace import Workspace
from particle_os.vm.image_format import FORMATS, image_format

RESULT, REPORT = "result.json", "report.html"
# An artifact may have any format. The first one is small without compression of the file.
ARTIFACT_FORMATS: tuple[ArtifactFormat, ...] = ("qcow2", "raw", "vmdk", "vdi", "vhd")
READ_SECONDS = 3600.0
CHUNK = 1 << 20
# The names of QEMU's formats in results.
NAMES: dict[str, ArtifactFormat] = {
    FORMATS[name]: name for name in ("raw", "qcow2", "vmdk", "vdi", "vhd")
}


@dataclass(frozen=True)
class FileBeside:
    """A small file beside an image: its name, and what was in it when it was examined."""

    name: str
    data: bytes


@dataclass(frozen=True)
class PublishedImage:
    """An image file of the format `format`, with the SHA-256 of its content.

    `result` and `report` are those of the build that made it; None without a result about these
    bytes.
    """

    path: Path
    format: ArtifactFormat
    is_compressed: bool
    bytes: int
    sha256: str
    built: Result | None = None
    result: FileBeside | None = None
    report: FileBeside | None = None

    @property
    def name(self) -> str:
        """The name of the recipe; of an image without a result, that of the file."""
        return self.built.recipe if self.built else self.path.name.partition(".")[0]


def find_image(name: str, directory: Path, wanted: Sequence[ArtifactFormat]) -> Path:
    """The image that `name` names: a file, or the result of a build in `directory`.

    Of several images of a result, the first one of the formats `wanted`. Raises UsageError.
    """
    path = Path(name)
    if path.exists() and not path.is_dir():
        return path
    place = directory / f"{name}.{RESULT}"
    found = _read(place) if path.name == name else None
    if found is None:
        raise UsageError(
            f"there is no file {printable(name)}, and no result {printable(str(place))}",
            hint="Name an image, or a recipe that was built into --output; "
            "'particle-os list images' shows those.",
        )
    images = [a for a in found[0].artifacts if a.is_image and _is_there(directory, a.path)]
    if not images:
        raise UsageError(f"the build of {printable(name)} has no image in {directory}")
    return directory / _preferred(images, wanted).path


def _is_there(directory: Path, name: str) -> bool:
    """Whether a name in a result is that of a file of its directory, and no link out of it."""
    path = directory / name
    return path.name == name and path.is_file() and not path.is_symlink()


def _preferred(
    images: Sequence[ArtifactResult], wanted: Sequence[ArtifactFormat]
) -> ArtifactResult:
    """The image of the first wanted format; of two of one format, the compressed one."""

    def rank(image: ArtifactResult) -> tuple[int, bool]:
        found = wanted.index(image.format) if image.format in wanted else len(wanted)
        return found, image.compression is None

    return min(images, key=rank)


def examine(path: Path, given_format: str | None) -> PublishedImage:
    """Reads an image, and the result beside it that has its checksum.

    Raises UsageError and OSError.
    """
    size, sha256 = _read_whole(path)
    for place in sorted(path.parent.glob(f"*.{RESULT}")):
        result, data = _read(place) or (None, b"")
        for artifact in result.artifacts if result else ():
            if artifact.is_image and (artifact.path, artifact.sha256) == (path.name, sha256):
                return PublishedImage(
                    path, artifact.format, artifact.compression is not None, size, sha256,
                    result, FileBeside(place.name, data), _report(place),
                )  # fmt: skip
    driver = image_format(path, given_format)
    if driver not in NAMES:
        raise UsageError(
            f"{path} has the format {driver}", hint="Convert it with 'qemu-img convert -O qcow2'."
        )
    return PublishedImage(path, NAMES[driver], False, size, sha256)


def check_tested(image: PublishedImage) -> None:
    """Raises NotBooted for an image whose result does not say that it has passed its boot test."""
    hint = "Build it with its boot test, or push it with --untested."
    if image.built is None:
        changed = any(image.path.name in names for names in _listed(image.path.parent))
        why = "has changed since it was built" if changed else "has no result of a build beside it"
        raise NotBooted(f"{image.path} {why}: nothing says that it boots", hint=hint)
    if image.built.status != "passed":
        raise NotBooted(
            f"{image.path} has not passed a boot test: its status is '{image.built.status}'",
            hint=hint,
        )


def _listed(directory: Path) -> Iterable[list[str]]:
    """The names of the images in each result of a directory."""
    for place in directory.glob(f"*.{RESULT}"):
        if (found := _read(place)) is not None:
            yield [artifact.path for artifact in found[0].artifacts]


def _read(place: Path) -> tuple[Result, bytes] | None:
    """A result and its bytes; None when the file holds none, or is a link."""
    try:
        data = read_regular(place, RESULT_LIMIT, follow=False)
        return Result.model_validate_json(data), data
    except (OSError, pydantic.ValidationError):
        return None


def _report(result: Path) -> FileBeside | None:
    """The report beside a result. Raises UsageError for any other file of its name."""
    path = result.with_name(f"{result.name.removesuffix(RESULT)}{REPORT}")
    try:
        data = read_regular(path, RESULT_LIMIT, follow=False)
        why = None if is_inert(data) else "not a report of particle-os"
    except FileNotFoundError:
        return None
    except OSError as error:
        why = error.strerror
    if why is not None:
        raise UsageError(
            f"the report beside the image, {path}, is {why}",
            hint="Remove it, or build the image again.",
        )
    return FileBeside(path.name, data)


def _read_whole(path: Path) -> tuple[int, str]:
    """The size and the SHA-256 of a file, from one reading."""
    deadline = Deadline.after(READ_SECONDS, f"reading {path}")
    digest, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        while data := file.read(CHUNK):
            digest.update(data)
            size += len(data)
            deadline.remaining()
    return size, digest.hexdigest()


def architecture_of(
    image: PublishedImage, given_format: str | None, given: str | None, work: Workspace
) -> str:
    """The architecture of the build, or of the disk, or the given one.

    Raises UsageError if nothing says it, or something says another one.
    """
    if image.built:
        found: str | None = image.built.architecture
    else:
        driver = image_format(image.path, given_format)
        disk = contents.architecture(image.path, driver, work.path)
        found = disk.name if disk else None
    if found is not None and given not in (None, found):
        raise UsageError(f"{image.path} is for {found}, not for {given}")
    if found is None and given is None:
        raise UsageError(
            f"nothing says which architecture {image.path} is for",
            hint="Give --architecture: a cluster starts only what is for its machines.",
        )
    return str(found or given)

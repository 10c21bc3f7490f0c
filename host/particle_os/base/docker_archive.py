"""Archives of `docker save`, which skopeo reads: the reasons why it cannot.

Format: https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md, "Combined Image JSON".
"""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pydantic

from particle_os.base import layout, oci
from particle_os.errors import UsageError, printable
from particle_os.system import tar_archive
from particle_os.system.deadline import Deadline


class _Image(pydantic.BaseModel):
    """An item of the list of images. Its keys are those of the format."""

    Config: str
    RepoTags: list[str] | None = None
    Layers: list[str]


_LIST = pydantic.TypeAdapter(list[_Image])


def explain(path: Path, selector: str, deadline: Deadline) -> None:
    """Raises UsageError when the archive is of another kind, or the image's name is to blame.

    `selector` is the name in the reference, after a colon; empty without one.
    """
    reference = f"docker-archive:{path}{selector}"
    try:
        found = layout.members(path, [layout.DOCKER_INDEX, layout.INDEX], deadline)
    except (OSError, tarfile.TarError) as error:
        raise layout.unreadable(reference, error) from error
    if layout.DOCKER_INDEX not in found:
        if layout.INDEX in found:
            raise UsageError(
                f"{reference} is an archive of an OCI image layout",
                hint="Write oci-archive: in place of docker-archive:.",
            )
        raise UsageError(f"{reference} is no archive of 'docker save'")
    images = _images(found[layout.DOCKER_INDEX], reference)
    names = sorted({name for image in images for name in image.RepoTags or ()})
    wanted = selector[1:]
    # "@" and a number name an image by its place.
    is_known = wanted.startswith("@") or _normal(wanted) in map(_normal, names)
    if (wanted and not is_known) or (not wanted and len(images) > 1):
        raise layout.no_single_image(reference, wanted, names)
    _check_configurations(path, images, reference, deadline)
    if program := tar_archive.unpacker(path):
        # Several programs refuse to replace a suffix that they do not know.
        plain = path.with_name(f"{path.name.removesuffix('.tgz').partition('.tar')[0]}-plain.tar")
        command = f"{program} < {shlex.quote(str(path))} > {shlex.quote(str(plain))}"
        raise UsageError(
            f"{reference} is compressed, and the skopeo of this host cannot read it so",
            hint=f"Run `{command}`, and write {plain.name} in place of {path.name}.",
        )


def _check_configurations(
    path: Path, images: Sequence[_Image], reference: str, deadline: Deadline
) -> None:
    """Raises UsageError for an image whose configuration is missing or invalid."""
    wanted = [image.Config for image in images]
    try:
        found = layout.members(path, wanted, deadline)
    except (OSError, tarfile.TarError) as error:
        raise layout.unreadable(reference, error) from error
    for name in wanted:
        if name not in found:
            raise UsageError(
                f"{reference} is damaged: it lacks the file {printable(name, 100)}",
                hint=oci.AGAIN,
            )
        oci.read_configuration(found[name], reference)


def _images(document: bytes, reference: str) -> list[_Image]:
    """The images that the archive lists. Raises UsageError for an odd list."""
    try:
        return _LIST.validate_json(document)
    except pydantic.ValidationError as error:
        raise UsageError(
            f"{reference} is damaged: its {layout.DOCKER_INDEX} is no list of images",
            hint=oci.AGAIN,
        ) from error


def _normal(name: str) -> str:
    """A name as skopeo reads it: with the registry, the user and the tag that it may lack.

    The rules are those of distribution/reference, ParseDockerRef and TagNameOnly.
    """
    domain, slash, rest = name.partition("/")
    if not slash or not ("." in domain or ":" in domain or domain == "localhost"):
        domain, rest = "docker.io", name
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    tagged = ":" in rest.rpartition("/")[2] or "@" in rest
    return f"{domain}/{rest}" if tagged else f"{domain}/{rest}:latest"

"""Archives of `docker save`, which skopeo reads: the reasons why it cannot.

Format: https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md, "Combined Image JSON".
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from particle_os.base import layout
from particle_os.errors import UsageError
from particle_os.system.deadline import Deadline


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
                hint=f"Write oci-archive:{path.name}.",
            )
        raise UsageError(f"{reference} is no archive of 'docker save'")
    images = _images(found[layout.DOCKER_INDEX])
    names = sorted({name for image in images for name in image})
    wanted = selector[1:]
    # "@" and a number name an image by its place.
    is_known = wanted.startswith("@") or _normal(wanted) in map(_normal, names)
    if (wanted and not is_known) or (not wanted and len(images) > 1):
        raise layout.no_single_image(reference, wanted, names)


def _images(document: bytes) -> list[list[str]]:
    """The names of each image; empty for an odd document, which skopeo has refused already."""
    try:
        return [[str(name) for name in image["RepoTags"] or ()] for image in json.loads(document)]
    except (ValueError, RecursionError, TypeError, KeyError):
        return []


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

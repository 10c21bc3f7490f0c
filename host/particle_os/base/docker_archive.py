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
        raise UsageError(
            f"{reference} cannot be read: {error}",
            hint="Check that the files are complete, for example with 'skopeo inspect'.",
        ) from error
    if layout.DOCKER_INDEX not in found:
        if layout.INDEX in found:
            raise UsageError(
                f"{reference} is an archive of an OCI image layout",
                hint=f"Write oci-archive:{path.name}.",
            )
        raise UsageError(f"{reference} is no archive of 'docker save'")
    names = sorted(_names(found[layout.DOCKER_INDEX]))
    if (selector and selector[1:] not in names) or (not selector and len(names) > 1):
        raise layout.no_single_image(reference, selector[1:], names)


def _names(document: bytes) -> set[str]:
    """The names of the images; empty for an odd document, which skopeo has refused already."""
    try:
        images = json.loads(document)
        return {str(name) for image in images for name in image["RepoTags"] or ()}
    except (ValueError, RecursionError, TypeError, KeyError):
        return set()

"""Finds the base that the reference in a recipe names."""

from __future__ import annotations

import shlex
from pathlib import Path

from particle_os.architecture import AMD64
from particle_os.base import container
from particle_os.base.commit import find_commit
from particle_os.base.model import Base, ImageBase, TarBase
from particle_os.base.suite import find_suite
from particle_os.base.tarball import architecture_of, image_archive_of
from particle_os.errors import UsageError
from particle_os.recipe.base_reference import check_base_reference
from particle_os.system.checksum import file_sha256


def find_base(
    reference: str,
    relative_to: Path,
    architecture: str,
    cache: Path,
    *,
    mirror: str | None,
    rebuild: bool,
    plain: bool,
    key: bytes | None = None,
) -> Base | None:
    """The base of a reference; None for the base of a suite that must be made first.

    With `rebuild` the base of a suite must always be made. For a container image, only the
    description is fetched. A commit must have a signature of the public `key`, if there is one:
    the VM checks that. Raises UsageError when the base does not exist or has another
    architecture, and InfrastructureError when a registry does not answer.
    """
    if commit := find_commit(reference, relative_to, architecture, key):
        return commit
    source = container.parse(reference, relative_to)
    if source is None:
        found = resolve_file(reference, relative_to, architecture)
        if found is not None or rebuild:
            return found
        suite = reference.removeprefix("mmdebstrap:")
        return find_suite(suite, mirror, architecture, cache, plain=plain)
    image = container.describe(reference, relative_to, architecture, cache)
    return ImageBase(image, source, cache)


def existing_base(
    reference: str, architecture: str | None, cache: Path, *, mirror: str | None
) -> Base:
    """The base of a reference on the command line of `inspect`, by default for amd64.

    Raises UsageError when the base of a suite has not been made yet; otherwise as `find_base`.
    """
    check_base_reference(reference, "inspect")
    found = find_base(
        reference,
        Path(),
        architecture or AMD64.name,
        cache,
        mirror=mirror,
        rebuild=False,
        plain=False,
    )
    if found is None:
        raise UsageError(
            f"the base image {reference} has not been made yet",
            hint="It is made by the first build that starts from it.",
        )
    return found


def resolve_file(reference: str, relative_to: Path, architecture: str) -> TarBase | None:
    """The base of a `tar:` reference; None for other references.

    Raises UsageError when the file is missing, is no tar archive, or has another architecture.
    """
    if not reference.startswith("tar:"):
        return None
    path = relative_to / reference.removeprefix("tar:")
    if not path.exists():
        raise UsageError(
            f"the base image {reference} does not exist: {path}",
            hint="Correct the path: it is relative to the directory of the recipe.",
        )
    if not path.is_file():
        raise UsageError(
            f"{reference}: {path} is no file, but tar: needs a tar archive",
            hint=f"Make one: tar --create --file base.tar --directory {shlex.quote(str(path))} .",
        )
    found = architecture_of(path)
    if found is None and (image := image_archive_of(path)):
        raise UsageError(
            f"{path} is an archive of a container image, not of a root file system",
            hint=f"Write {image}:{reference.removeprefix('tar:')}.",
        )
    if found is None and path.name.endswith(".ostree.tar"):
        raise UsageError(
            f"{path} is a repository of OSTree, not a root file system",
            hint=f"Write ostree:{reference.removeprefix('tar:')}#REF.",
        )
    if found is None:
        raise UsageError(
            f"{path} holds no root file system: there is no program in /usr/bin or /bin",
            hint="The top directory of the archive must be the root directory itself.",
        )
    if found != architecture:
        raise UsageError(f"{path} is for {found}, and {architecture} is wanted")
    return TarBase(reference, path, f"sha256:{file_sha256(path)}")

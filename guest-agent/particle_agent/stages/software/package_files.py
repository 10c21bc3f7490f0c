"""Package files of the recipe, which apt installs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from particle_agent.errors import CommandFailed, StageError
from particle_agent.target.target import Target

LOCAL_DEBS = "/run/particle-os-debs"
DEB_FORMAT = "${Package} ${Version}\\n"


@dataclass(frozen=True)
class PackageFile:
    """A package file at `path` in the target."""

    path: str
    package: str
    version: str


@contextmanager
def local(target: Target, references: Sequence[str]) -> Iterator[list[PackageFile]]:
    """Copies the package files of the recipe into the target until the context ends."""
    found = []
    try:
        for number, reference in enumerate(references):
            path = f"{LOCAL_DEBS}/{number}.deb"
            with target.attached(reference).open("rb") as data:
                target.write_from(data, path)
            try:
                shown = target.capture(["dpkg-deb", "--show", "--showformat", DEB_FORMAT, path])
            except CommandFailed as failed:
                raise StageError(
                    f"package file {number + 1} is no Debian package", tail=failed.tail
                ) from failed
            package, version = shown.split()
            found.append(PackageFile(path, package, version))
        yield found
    finally:
        target.remove(LOCAL_DEBS)

"""Stage sources: apt's package sources and the keys that sign them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from particle_agent.contract import keys
from particle_agent.contract.needs import Need
from particle_agent.contract.options import (
    HOST_PATH,
    AtLeastOne,
    OnHost,
    Options,
    Place,
    idle,
    refuse,
    repeated,
)
from particle_agent.contract.values import (
    ArchitectureName,
    ComponentName,
    KeyringPath,
    SigningKey,
    SnapshotDate,
    SourceName,
    SourceUri,
    SuiteName,
)
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.stages.software import components
from particle_agent.target.target import Target

SOURCES = "/etc/apt/sources.list"
PARTS = "/etc/apt/sources.list.d"
KEYRINGS = "/etc/apt/keyrings"
DATE = "{date}"
KeyFile = Annotated[str, OnHost(*HOST_PATH, faults=keys.signing_key_faults)]


@dataclass(frozen=True, kw_only=True)
class Repository(Options):
    """One repository; it becomes /etc/apt/sources.list.d/NAME.sources (sources.list(5))."""

    name: SourceName
    """The name of the files to write. They replace existing files of that name."""
    mirrors: Annotated[tuple[SourceUri, ...], AtLeastOne()]
    """The URLs of the repository. `{date}` stands for the date of `snapshot`."""
    suites: Annotated[tuple[SuiteName, ...], AtLeastOne()]
    """The suites, such as trixie and trixie-updates. `./` is for a repository without suites."""
    components: tuple[ComponentName, ...] = ("main",)
    """The components of each suite. Suites that end with / have none."""
    architectures: tuple[ArchitectureName, ...] = ()
    """The architectures to use. The default is the architectures of the image."""
    source_packages: bool = False
    """Whether to include source packages (deb-src)."""
    key: SigningKey | None = None
    """The armored key that signs the repository. apt trusts it for this repository only."""
    key_file: KeyFile | None = None
    """A file with the key, armored or binary, relative to the recipe."""
    keyring: KeyringPath | None = None
    """A keyring in the image that contains the key. Without `key`, `key-file` and `keyring`, apt
    trusts the keys in /etc/apt/trusted.gpg.d."""

    def __post_init__(self) -> None:
        refuse((place, f"{self.name}: {message}") for place, message in self._faults())

    def _faults(self) -> Iterator[tuple[Place, str]]:
        if sum(key is not None for key in (self.key, self.key_file, self.keyring)) > 1:
            yield (), "write one of 'key', 'key-file' and 'keyring'"
        for fault in keys.signing_key_faults(self.key.encode()) if self.key else ():
            yield ("key",), f"key: {fault}"
        if len({suite.endswith("/") for suite in self.suites}) > 1:
            yield ("suites",), "give suites that end with '/' a repository of their own"


@dataclass(frozen=True, kw_only=True)
class Sources(StageOptions):
    """Sets the package sources of the image, for all later stages."""

    type: Literal["sources"] = "sources"
    repositories: tuple[Repository, ...] = ()
    """The repositories to write."""
    replace: bool = False
    """Whether to remove the existing sources of the image first."""
    components: tuple[ComponentName, ...] = ()
    """Components to add to Debian's sources in the image that have `main`, such as
    non-free-firmware."""
    snapshot: SnapshotDate | None = None
    """The date of the packages, for mirrors with {date}. apt then accepts expired indexes."""

    def __post_init__(self) -> None:
        named = ((("repositories", i, "name"), r.name) for i, r in enumerate(self.repositories))
        refuse(self._faults(), repeated("repository", named))

    def _faults(self) -> Iterator[tuple[Place, str]]:
        if not (self.repositories or self.replace or self.components):
            yield from idle("sources", "repositories", "replace", "components")
        if self.replace and self.components:
            message = "'replace' removes the sources that would have them; each of 'repositories' "
            yield ("components",), f"components: {message}has 'components' of its own"
        dated = [
            ("repositories", i, "mirrors", number)
            for i, repository in enumerate(self.repositories)
            for number, uri in enumerate(repository.mirrors)
            if DATE in uri
        ]
        if self.snapshot is None:
            if dated:
                yield dated[0], f"sources: a mirror has {DATE}, so 'snapshot' is needed"
            return
        try:
            datetime.strptime(self.snapshot, "%Y%m%dT%H%M%SZ")
        except ValueError:
            yield ("snapshot",), f"snapshot: there is no moment {self.snapshot}"
        if not dated:
            yield ("snapshot",), f"sources: 'snapshot' is of no use: no mirror has {DATE}"

    def may_bring(self, need: Need) -> bool:
        # The packages of other repositories may depend on anything.
        return any(one.key or one.key_file for one in self.repositories)

    def rewrites(self) -> Iterator[tuple[str, str]]:
        instead = "describe the source in 'repositories' of the stage"
        if self.replace:
            for pattern in (SOURCES, f"{PARTS}/*.list", f"{PARTS}/*.sources"):
                yield pattern, instead
        for repository in self.repositories:
            yield f"{PARTS}/{repository.name}.sources", instead
            for ending in ("asc", "gpg") if repository.key or repository.key_file else ():
                key = "name the file as 'keyring', or leave it to 'key' or 'key-file'"
                yield f"{KEYRINGS}/{repository.name}.{ending}", key

    def run(self, target: Target) -> None:
        if not target.exists("/etc/apt"):
            raise StageError(
                "the base has no apt",
                hint="Use a Debian base image that contains the 'apt' package.",
            )
        if self.replace:
            target.remove(SOURCES)
            for name in target.list(PARTS):
                if name.endswith((".list", ".sources")):
                    target.remove(f"{PARTS}/{name}")
        if self.components:
            names = [n for n in target.list(PARTS) if n.endswith((".list", ".sources"))]
            components.add(target, [SOURCES, *(f"{PARTS}/{n}" for n in names)], self.components)
        for repository in self.repositories:
            keyring = _keyring(target, repository)
            fields = _fields(repository, keyring, self.snapshot)
            text = "".join(f"{name}: {value}\n" for name, value in fields)
            target.write(f"{PARTS}/{repository.name}.sources", text)


def _keyring(target: Target, repository: Repository) -> str | None:
    """Writes the repository's key to a keyring for apt. Returns its path, or None without a key."""
    if repository.keyring is not None:
        if not target.exists(repository.keyring):
            raise StageError(
                f"repository {repository.name}: there is no {repository.keyring} in the image",
                hint="Install the package that brings it, or give the key with 'key-file'.",
            )
        return repository.keyring
    if repository.key is not None:
        data = repository.key.encode()
    elif repository.key_file is not None:
        data = target.attached(repository.key_file).read_bytes()
    else:
        return None
    # apt derives the format of a keyring from the suffix.
    ending = "asc" if keys.is_armored(data) else "gpg"
    for other in ("asc", "gpg"):
        target.remove(f"{KEYRINGS}/{repository.name}.{other}")
    place = f"{KEYRINGS}/{repository.name}.{ending}"
    target.write_from(io.BytesIO(data), place)
    return place


def _fields(
    repository: Repository, keyring: str | None, date: str | None
) -> Iterator[tuple[str, str]]:
    dated = any(DATE in uri for uri in repository.mirrors)
    yield "Types", "deb deb-src" if repository.source_packages else "deb"
    yield "URIs", " ".join(uri.replace(DATE, date or "") for uri in repository.mirrors)
    yield "Suites", " ".join(repository.suites)
    if not repository.suites[0].endswith("/"):
        yield "Components", " ".join(repository.components)
    if repository.architectures:
        yield "Architectures", " ".join(repository.architectures)
    if dated:
        yield "Check-Valid-Until", "no"
    if keyring is not None:
        yield "Signed-By", keyring

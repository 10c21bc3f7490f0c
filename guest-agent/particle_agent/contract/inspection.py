"""The result of inspecting a disk or a system, and the facts about a commit."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition. `start` and `size` are in bytes; `type` is the type that sfdisk(8) prints."""

    number: int
    start: int
    size: int
    type: str
    name: str
    file_system: FileSystem | None


@dataclass(frozen=True, kw_only=True)
class Package:
    """An installed Debian package. `size` is its own statement of its installed size, in bytes."""

    name: str
    version: str
    architecture: str
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user account for logins: root, or the account of a person."""

    name: str
    uid: int
    shell: str
    password: Literal["set", "empty", "locked"]


@dataclass(frozen=True, kw_only=True)
class OsReleaseField:
    """One line of os-release(5)."""

    key: str
    value: str


@dataclass(frozen=True, kw_only=True)
class System:
    """A root file system."""

    os_release: tuple[OsReleaseField, ...]
    hostname: str
    kernels: tuple[str, ...]
    packages: tuple[Package, ...]
    accounts: tuple[Account, ...]


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A version of a system on a disk of OSTree.

    `path` is that of its directory, `origin` the branch that it updates from. The next boot starts
    the `default`.
    """

    path: str
    checksum: str
    version: str | None
    origin: str | None
    default: bool


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A disk or a system without a disk.

    `size` is the size of the disk in bytes, and 0 for a system. `table` is None for a disk without
    a partition table; a table is for sectors of `sector_size` bytes. `system` is that of the
    default of the `deployments`, if there are any.
    """

    size: int
    table: str | None
    partitions: tuple[Partition, ...]
    boot_loaders: tuple[str, ...]
    system: System | None
    sector_size: int = 512
    deployments: tuple[Deployment, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    """A file system. Sizes are in bytes; `used` is None when the file system cannot be mounted."""

    kind: str
    label: str
    uuid: str
    size: int | None = None
    used: int | None = None


# The serial number of the virtual disk that is inspected.
SERIAL = "inspected"
# The key of a commit's metadata that names the stateroot, which no other part of it does.
STATEROOT = "particle-os.stateroot"
# The file of a version of an OSTree system with the number of boots within which the version must
# succeed; 0 does not count.
COUNTED_BOOTS = "/usr/lib/particle-os/counted-boots"
# Prepares the fetched version of such a system. /etc is merged at the shutdown, with all changes.
# The machines and the test of updates run the same command.
STAGE_UPDATE = "ostree admin upgrade --deploy-only --stage"
# The labels of a container image that machines can boot: those of bootc, and of OSTree's tools.
BOOTABLE_LABELS = MappingProxyType({"containers.bootc": "1", "ostree.bootable": "true"})
# The most packages and the most files that are named.
NAMED = 1000


@dataclass(frozen=True, kw_only=True)
class ChangedPackage:
    """A package with another version than in the parent; None where there is no such package."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class ChangedFiles:
    """The files of a commit that differ from the parent's: their numbers, and the first names."""

    added: int
    changed: int
    removed: int
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CommitFacts:
    """A commit of OSTree. `signer` is the fingerprint of the key that has signed it.

    `files` is None without a parent. `packages` are the first `NAMED` of `packages_total`.
    """

    ref: str
    checksum: str
    parent: str | None
    version: str | None
    signer: str | None
    packages: tuple[ChangedPackage, ...] = ()
    packages_total: int = 0
    files: ChangedFiles | None = None

"""What an inspection of a disk or of a system reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition: where it starts and how large it is, in bytes; its type as sfdisk(8) tells."""

    number: int
    start: int
    size: int
    type: str
    name: str
    file_system: FileSystem | None


@dataclass(frozen=True, kw_only=True)
class Package:
    """An installed Debian package; `size` is what it takes, in bytes, as it says itself."""

    name: str
    version: str
    architecture: str
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user whom a person or root logs in as."""

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
class Inspection:
    """A disk (`table` is None without a partition table), or a system alone (`size` is 0 then)."""

    size: int
    table: str | None
    partitions: tuple[Partition, ...]
    boot_loaders: tuple[str, ...]
    system: System | None


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    """A file system; sizes in bytes, `used` None when it could not be mounted."""

    kind: str
    label: str
    uuid: str
    size: int | None = None
    used: int | None = None


SERIAL = "inspected"

"""Packages of Debian: the disk that the host fills with them, and the components of some."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The names of files and directories on the disk.
INDEX = "Packages"
ARCHIVES = "archives"
DATABASE = "database.tar"
LOOSE = "loose"
# The apt settings, other than its files, that decide which packages apt selects and from where.
SETTINGS = ("APT::Default-Release", "Acquire::http::Proxy", "Acquire::https::Proxy")
MERGED = ("/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/")
FIELD = re.compile(r"(?m)^(Package|Architecture|Version): *(\S+)")


# The components of Debian that images do not have by default, and names of packages in them
# (https://www.debian.org/doc/debian-policy/ch-archive.html#archive-areas).
COMPONENTS = {
    ("non-free-firmware",): re.compile(r"firmware-(?!linux-free)|.*-microcode$|.*-firmware$"),
    ("contrib", "non-free"): re.compile(r"nvidia-|broadcom-sta|rar$|unrar$|steam|zfs"),
}


def components_of(package: str) -> tuple[str, ...]:
    """The components that may have a package; none for a package of main."""
    return next((found for found, names in COMPONENTS.items() if names.match(package)), ())


@dataclass(frozen=True, kw_only=True)
class Loose:
    """A package that can be unpacked without dpkg, because unpacking it only writes files.

    `stanza` is its paragraph in dpkg's status. The absolute paths are those that dpkg writes or
    removes.
    """

    stanza: str
    directories: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def package(self) -> str:
        return str(dict(FIELD.findall(self.stanza))["Package"])


def merged(path: str) -> str:
    """The path in a system whose /bin, /sbin and /lib* are links into /usr."""
    return f"/usr{path}" if path.startswith(MERGED) else path

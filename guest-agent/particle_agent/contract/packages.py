"""The content of the disk of packages, which the host writes and the agent reads."""

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

"""What the disk of packages holds that the host hands in, and what is told of a package there."""

from __future__ import annotations

import re
from dataclasses import dataclass

INDEX = "Packages"


ARCHIVES = "archives"


DATABASE = "database.tar"


PLAIN = "plain"


# What else of apt's configuration decides which packages are taken, and from where.
SETTINGS = ("APT::Default-Release", "Acquire::http::Proxy", "Acquire::https::Proxy")


MERGED = ("/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/")


FIELD = re.compile(r"(?m)^(Package|Architecture|Version): *(\S+)")


@dataclass(frozen=True, kw_only=True)
class Plain:
    """What dpkg would note of a package, and what it would write or take away; absolute paths."""

    stanza: str
    directories: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def package(self) -> str:
        return str(dict(FIELD.findall(self.stanza))["Package"])


def merged(path: str) -> str:
    """The path where /bin and its like are links into /usr."""
    return f"/usr{path}" if path.startswith(MERGED) else path

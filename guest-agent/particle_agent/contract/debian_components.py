"""The components of Debian that images do not have by default, and names of packages in them."""

from __future__ import annotations

import re

# https://www.debian.org/doc/debian-policy/ch-archive.html#archive-areas
ELSEWHERE = {
    ("non-free-firmware",): re.compile(r"firmware-(?!linux-free)|.*-microcode$|.*-firmware$"),
    ("contrib", "non-free"): re.compile(r"nvidia-|broadcom-sta|rar$|unrar$|steam|zfs"),
}


def of(package: str) -> tuple[str, ...]:
    """The components that may have a package; none for a package of main."""
    return next((found for found, names in ELSEWHERE.items() if names.match(package)), ())

"""The features that the image's OSTree has. Debian builds each version with other ones."""

from __future__ import annotations

import re

from particle_agent.errors import StageError
from particle_agent.ostree.image.choices import RootSettings
from particle_agent.target.target import Target

# The first version whose ostree-prepare-root(1) knows `etc.transient`.
TRANSIENT_ETC = (2023, 7)
VERSION = re.compile(r"^ *Version: '?([0-9]+)\.([0-9]+)", re.MULTILINE)
FEATURE = re.compile(r"^ *- (\S+)$", re.MULTILINE)


def check(target: Target, settings: RootSettings) -> None:
    """Raises StageError for a setting that the image's OSTree does not know."""
    if settings == RootSettings():
        return
    told = target.capture(["ostree", "--version"])
    found = VERSION.search(told)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    shown = ".".join(map(str, version))
    if settings.etc == "transient" and version < TRANSIENT_ETC:
        raise StageError(
            f"etc: the image's ostree {shown} cannot forget the changes of /etc",
            hint="Debian 13 (trixie) is the first whose ostree can; use a newer base, or write "
            "'etc: persistent'.",
        )
    if settings.composefs and "composefs" not in FEATURE.findall(told):
        raise StageError(
            f"composefs: the image's ostree {shown} is built without composefs",
            hint="Debian 14 (forky) has it; leave 'composefs' out for older suites.",
        )

"""The initramfs of a deployment: it mounts the deployment that the kernel's command line names.

Debian's package ostree-boot brings a module for dracut, and none for initramfs-tools.
"""

from __future__ import annotations

import re

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.ostree.image.choices import RootSettings
from particle_agent.system import kernels
from particle_agent.target.target import Target

PREPARE_ROOT = "/usr/lib/ostree/ostree-prepare-root"
CONFIGURATION = "/usr/lib/ostree/prepare-root.conf"
# It comes before that of /usr, and may be of the image that the system was made from.
OTHER_CONFIGURATION = "/etc/ostree/prepare-root.conf"
COMPOSEFS = re.compile(r"^\s*enabled\s*=\s*(yes|true|1|signed|verity)\s*$", re.MULTILINE)
TOOLS = "/usr/share/initramfs-tools"
UPDATE = "/usr/sbin/update-initramfs"
# initramfs-tools(7)
HOOK = f"""\
#!/bin/sh
case "$1" in
prereqs) exit ;;
esac
. {TOOLS}/hook-functions
copy_exec {PREPARE_ROOT}
mkdir -p "$DESTDIR/usr/lib/ostree"
cp {CONFIGURATION} "$DESTDIR{CONFIGURATION}"
"""
MODULES = "manual_add_modules {modules}\n"
# The script runs before `udev`, which moves /dev to the new root: scripts run in the order of their
# names.
SCRIPT = f"""\
#!/bin/sh
case "$1" in
prereqs) exit ;;
esac
read -r words </proc/cmdline
case " $words " in
*" ostree="*) exec {PREPARE_ROOT} "$rootmnt" ;;
esac
"""


def package_needs() -> list[Need]:
    """The needs of an initramfs that mounts a deployment."""
    return [
        needs.package("ostree-boot", PREPARE_ROOT, "a disk that OSTree updates"),
        needs.package("initramfs-tools", UPDATE, "the initramfs of a deployment", others=True),
    ]


def make(target: Target, version: str, settings: RootSettings) -> None:
    """Makes the initramfs of the kernel `version` again, with what a deployment needs."""
    _note_settings(target, settings)
    target.remove(OTHER_CONFIGURATION)
    target.write(CONFIGURATION, settings.text)
    modules = MODULES.format(modules=" ".join(settings.modules)) if settings.modules else ""
    target.write(f"{TOOLS}/hooks/ostree", HOOK + modules, mode=0o755)
    target.write(f"{TOOLS}/scripts/init-bottom/ostree", SCRIPT, mode=0o755)
    kernels.make_initramfs(target, version)


def _note_settings(target: Target, settings: RootSettings) -> None:
    """Notes a composefs that the image asks for, and that its commit has not."""
    files = (path for path in (CONFIGURATION, OTHER_CONFIGURATION) if target.is_file(path))
    if not settings.composefs and any(COMPOSEFS.search(target.read(path)) for path in files):
        target.reporter.note(
            "the image asks for a composefs, as bootc does; the commit is mounted without one"
        )

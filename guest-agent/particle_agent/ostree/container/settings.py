"""The files of the image that `bootc install` reads.

Formats: https://bootc.dev/bootc/man/bootc-install-config.5.html and
https://bootc.dev/bootc/building/kernel-arguments.html
"""

from __future__ import annotations

from particle_agent.ostree.image import kargs
from particle_agent.system import kernels
from particle_agent.target.target import Target

# bootc merges the files in the order of their names, so those of the recipe come later and count.
# `ostree.image.written` has the paths, too.
INSTALL = "/usr/lib/bootc/install/00-particle-os.toml"
KARGS = f"{kargs.DIRECTORY}/00-particle-os.toml"
# `bootc install to-disk` refuses an image that names no file system.
FILE_SYSTEM = "ext4"


def write(target: Target, stateroot: str) -> None:
    """Writes the files, before the tree is converted."""
    target.write(
        INSTALL,
        f"[install]\nstateroot = {kargs.quoted(stateroot)}\n\n"
        f"[install.filesystem.root]\ntype = {kargs.quoted(FILE_SYSTEM)}\n",
    )
    # bootc adds the words about the disk.
    consoles = target.architecture.image.consoles
    words = [word for word in kernels.command_line(target) if word not in consoles]
    target.write(KARGS, kargs.text([*consoles, *words]))

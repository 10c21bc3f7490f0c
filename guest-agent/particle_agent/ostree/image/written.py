"""The files of an image that a commit has not as they were."""

from __future__ import annotations

from collections.abc import Iterator

from particle_agent.disk import fstab
from particle_agent.ostree.image import initramfs
from particle_agent.ostree.image.layout import ETC, HIDDEN, LINKS
from particle_agent.system import generalize

# The files of the stage, under names that no package uses.
OWN = (
    "/usr/lib/particle-os/*", "/usr/lib/systemd/system/particle-os-*",
    "/usr/lib/systemd/system.conf.d/ostree-grub.conf",
    "/usr/lib/systemd/system/emergency.target.d/particle-os-boot-failure.conf",
    "/usr/lib/systemd/system/systemd-sysusers.service.d/ostree.conf",
    "/usr/lib/sysusers.d/ostree-accounts.conf", "/usr/lib/tmpfiles.d/ostree-machine.conf",
    f"{initramfs.TOOLS}/hooks/ostree", f"{initramfs.TOOLS}/scripts/init-bottom/ostree",
    "/usr/share/factory/var/*", "/usr/lib/bootc/*/00-particle-os.toml",
)  # fmt: skip


def rewrites() -> Iterator[tuple[str, str]]:
    """The files and the reasons (see `StageOptions.rewrites`)."""
    yield fstab.PATH, "name the mounts in the option 'mounts' of the stage 'qemu'"
    for path in LINKS:
        yield f"{path}/*", "put it into another directory, such as /srv: a commit has a link there"
    yield f"{ETC}/*", "put it into /etc"
    for path in ("boot", *HIDDEN):
        yield f"/{path}/*", "leave it out: a commit has none of its files"
    yield initramfs.CONFIGURATION, "set 'etc' or 'composefs' in the stage 'ostree'"
    for path in OWN:
        yield path, "give the file another name: the stage 'ostree' writes one of its own"
    yield from generalize.rewrites()

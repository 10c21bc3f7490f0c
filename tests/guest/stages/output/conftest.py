"""Fixtures of the stage `ostree`: a system, and a disk of its commit."""

import pytest
from particle_agent.ostree.repositories.commit_record import workshop
from particle_agent.stages.output.ostree import Ostree
from particle_agent.stages.output.qemu import Qemu

from .commits import CHECKSUM, GRUB_FILES, REF, Fake, write_image


@pytest.fixture
def debian(target):
    """A target with a kernel and GRUB; the helper VM has an imitation of ostree(1)."""
    for name in ("vmlinuz", "initrd.img"):
        target.write(f"/boot/{name}-6.12", name)
        target.symlink(f"/{name}", f"boot/{name}-6.12")
    for path, text in GRUB_FILES.items():
        target.write(path, text)
    for directory in ("dev", "etc", "proc", "run", "sys", "tmp", "var/lib/dpkg"):
        target.make_directory(f"/{directory}")
    target.write("/etc/passwd", "daemon:x:1:1::/:\n")
    target.write("/etc/group", "daemon:x:1:\n")
    target.captured["ostree"] = f"{CHECKSUM}\n"
    target.when("grub-mkimage", lambda command: write_image(target, command))
    target.ostree = Fake(target)
    target.when("ostree", target.ostree)
    return target


@pytest.fixture
def disk(debian):
    """A function that makes a disk of a commit, and returns the physical root."""

    def disk(stage=None, **options):
        (stage or Ostree(ref=REF)).run(debian)
        debian.commands.clear()
        Qemu(boot_loader="grub", **options).run(debian)
        return workshop(debian) / "disk-output/sysroot"

    return disk

"""The physical root of a disk: OSTree's repository, a deployment, and the entry that boots it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_agent.errors import StageError
from particle_agent.ostree.boot_menu import GENERATOR_TEXT, VARIABLE
from particle_agent.ostree.repositories.commit_record import CommitRecord, workshop
from particle_agent.ostree.repositories.repository import OstreeRepository
from particle_agent.target.target import Target


@dataclass(frozen=True)
class Sysroot:
    """A physical root with one deployment; both have the form of a target."""

    disk: Target
    deployment: Target

    @property
    def immutable(self) -> str:
        """The path of the deployment, which no program may change."""
        return "/" + str(self.deployment.root.relative_to(self.disk.root))

    @property
    def stateroot(self) -> str:
        """The path of the directory with the /var that all deployments share."""
        return self.immutable.rpartition("/deploy/")[0]

    def take_boot_files(self, target: Target) -> None:
        """Moves the files of the boot loader from the target, beside OSTree's own in /boot."""
        for name in target.list("/boot"):
            self.disk.remove(f"/boot/{name}")
            target.path(f"/boot/{name}").rename(self.disk.path(f"/boot/{name}", follow=False))


def make(
    target: Target, record: CommitRecord, source: OstreeRepository, words: Sequence[str], name: str
) -> Sysroot:
    """Deploys a commit of a repository in a new directory, for the output disk `name`.

    `words` are those of the kernel's command line, apart from `ostree=`, which OSTree adds.
    """
    place = workshop(target) / f"disk-{name}" / "sysroot"
    place.parent.mkdir()
    place.mkdir(mode=0o755)
    option = f"--sysroot={place}"
    target.run(["ostree", "admin", "init-fs", "--modern", str(place)])
    repository = OstreeRepository(target, place / "ostree/repo")
    for key, value in (("bootloader", "grub2"), ("bootprefix", "true"), ("readonly", "true")):
        repository.run("config", "set", f"sysroot.{key}", value)
    # The file lets OSTree take the disk for one with GRUB.
    (place / "boot/grub").mkdir(parents=True)
    (place / "boot/grub/grub.cfg").touch()
    target.run(["ostree", "admin", "os-init", option, record.stateroot])
    # Without a server, the machine has a branch of its own.
    remote = [] if record.remote is None else [f"--remote={record.remote}"]
    repository.run("pull-local", *remote, str(source.place), record.ref)
    generator = place.parent / "grub-generator"
    generator.write_text(GENERATOR_TEXT)
    generator.chmod(0o755)
    deploy = ["ostree", "admin", "deploy", option, f"--os={record.stateroot}"]
    # A word such as console= may be there several times: --karg= keeps the last one only.
    deploy += [f"--karg-append={word}" for word in words]
    name = record.ref if record.remote is None else f"{record.remote}:{record.ref}"
    target.run([*deploy, name], env={VARIABLE: str(generator)})
    deployment = _deployment(place, record)
    # The writer changes times; it makes the directory immutable on the disk again.
    target.run(["chattr", "-i", str(deployment)])
    return Sysroot(target.at(place), target.at(deployment))


def _deployment(place: Path, record: CommitRecord) -> Path:
    found = place / f"ostree/deploy/{record.stateroot}/deploy/{record.checksum}.0"
    if not found.is_dir():
        raise StageError(f"OSTree did not deploy the commit {record.checksum}")
    return found

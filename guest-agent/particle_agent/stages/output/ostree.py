"""Stage ostree: the system as a commit that machines update to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from particle_agent.contract.needs import Need
from particle_agent.contract.options import Between, Text, refuse
from particle_agent.disk import boot
from particle_agent.ostree import boot_success, initramfs, machine_files, tree
from particle_agent.ostree.commit_record import CHECKSUM, CommitRecord, workshop
from particle_agent.ostree.repository import OstreeRepository
from particle_agent.stages.base import StageOptions
from particle_agent.system import generalize
from particle_agent.target.target import Target

# ostree(1): the names of refs.
CommitRef = Annotated[
    str,
    Text(
        "a ref such as 'debian/13/amd64/edge'",
        r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*",
        200,
    ),
]
StateRoot = Annotated[str, Text("a name of a-z, 0-9 and '-'", r"[a-z0-9][a-z0-9-]*", 60)]
Publication = Literal["repository"]
OneLine = Annotated[str, Text("one line without control characters", r"[^\x00-\x1f\x7f]+", 200)]


@dataclass(frozen=True, kw_only=True)
class Ostree(StageOptions):
    """Turns the system into an OSTree commit, which machines boot and update to as a whole.

    Only the stage `qemu` may follow, which then writes a disk that boots the commit.
    """

    uses_name: ClassVar[bool] = True
    only_configures: ClassVar[bool] = True
    type: Literal["ostree"] = "ostree"
    ref: CommitRef
    """The name of the branch that machines follow, such as `debian/13/amd64/edge`."""
    stateroot: StateRoot = "debian"
    """The name of the system's directory on each machine, which all its versions share."""
    version: OneLine | None = None
    """The version of this commit, as the boot menu and `ostree admin status` show it."""
    subject: OneLine | None = None
    """One line for `ostree log`."""
    publish: tuple[Publication, ...] = ("repository",)
    """The files that the build publishes in addition to a disk: `repository` is NAME.ostree.tar, a
    repository for any web server."""
    boot_counting: Annotated[int, Between(0, 9)] = 3
    """The number of boots within which an update must succeed, or the machine returns to the
    version before it. 0 does not count."""

    def __post_init__(self) -> None:
        if CHECKSUM.fullmatch(self.ref.lower()):
            refuse([(("ref",), "ref: it looks like the checksum of a commit")])

    @property
    def has_repository(self) -> bool:
        return "repository" in self.publish

    def needs(self) -> Iterator[Need]:
        yield boot.kernel_need()
        yield boot.init_need()
        yield from initramfs.package_needs()
        if self.boot_counting:
            yield boot_success.need()

    def run(self, target: Target) -> None:
        kernel = boot.newest_kernel(target)
        initramfs.make(target, kernel.version)
        tree.move_kernel(target, kernel.version)
        boot_success.install(target, self.boot_counting)
        generalize.run(target)
        with target.mounted(target.root, "--bind") as place:
            generalize.empty(place, tree.HIDDEN)
        tree.convert(target)
        machine_files.write_rules(target)
        checksum = self._commit(target)
        CommitRecord(
            ref=self.ref,
            checksum=checksum,
            stateroot=self.stateroot,
            kernel=kernel.version,
            counted_boots=self.boot_counting,
            publish=self.publish,
        ).write(target)
        target.reporter.note(f"the commit of {self.ref} is {checksum}")

    def _commit(self, target: Target) -> str:
        repository = OstreeRepository(target, workshop(target) / "repository")
        repository.create("bare")
        arguments = ["--bootable"]
        if self.version is not None:
            arguments.append(f"--add-metadata-string=version={self.version}")
        if self.subject is not None:
            arguments.append(f"--subject={self.subject}")
        # The bind mount shows the tree without the mounts that the build needs.
        with target.mounted(target.root, "--bind") as place:
            return repository.commit(place, self.ref, _date(target), arguments)


def _date(target: Target) -> int:
    """The time of the commit, in seconds since 1970."""
    return int(time.time()) if target.source_date is None else target.source_date

"""Stage ostree: the system as a commit that machines update to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from particle_agent.contract.needs import Need
from particle_agent.contract.options import (
    Between,
    HostTree,
    Options,
    SecretName,
    Text,
    refuse,
    repeated,
)
from particle_agent.contract.values import Download
from particle_agent.contract.wire import OutputName
from particle_agent.disk import boot
from particle_agent.ostree import boot_counting, commit, initramfs
from particle_agent.ostree.remote import Remote
from particle_agent.ostree.repositories.commit_record import CHECKSUM
from particle_agent.stages.base import StageOptions
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
Publication = Literal["repository", "delta"]
OneLine = Annotated[str, Text("one line without control characters", r"[^\x00-\x1f\x7f]+", 200)]


@dataclass(frozen=True, kw_only=True)
class Sign(Options):
    """The signature of the commit."""

    gpg_secret: SecretName
    """The name of the stage's secret with a secret key of gpg, without a passphrase."""


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
    parent: HostTree | None = None
    """The version before this one: NAME.ostree.tar of an earlier build, or a directory with its
    content. Its commit of `ref` becomes the parent of the new one, and both are published."""
    parent_download: Download | None = None
    """The version before this one, as a NAME.ostree.tar that the host fetches."""
    sign: Sign | None = None
    """The signature of the commit. Its public key is part of the commit, and is published as
    NAME.ostree.gpg."""
    remote: Remote | None = None
    """The server that machines update from. Without it, machines do not update."""
    publish: tuple[Publication, ...] = ("repository",)
    """The files that the build publishes in addition to a disk: `repository` is NAME.ostree.tar, a
    repository for any web server, and `delta` is NAME.delta, the difference to the parent in one
    file, for machines without a network."""
    boot_counting: Annotated[int, Between(0, 9)] = 3
    """The number of boots within which an update must succeed, or the machine returns to the
    version before it. 0 does not count."""

    def __post_init__(self) -> None:
        if CHECKSUM.fullmatch(self.ref.lower()):
            refuse([(("ref",), "ref: it looks like the checksum of a commit")])
        if self.parent is not None and self.parent_download is not None:
            refuse([(("parent-download",), "parent-download: the commit has a 'parent' already")])
        if "delta" in self.publish and self.input_disk is None:
            message = "publish: a delta needs a 'parent', or a 'parent-download'"
            refuse([(("publish", self.publish.index("delta")), message)])
        numbered = ((("publish", index), name) for index, name in enumerate(self.publish))
        refuse(repeated("the publication", numbered))
        if self.sign and self.sign.gpg_secret not in {secret.name for secret in self.secrets}:
            place = ("sign", "gpg-secret")
            refuse([(place, f"gpg-secret: 'secrets' names no '{self.sign.gpg_secret}'")])
        if self.remote and self.remote.verify and self.sign is None:
            message = "verify: the commit has no signature; write 'sign', or 'verify: false'"
            refuse([(("remote", "verify"), message)])

    @property
    def publishes(self) -> tuple[OutputName, ...]:
        return (*self.publish, "key") if self.sign else self.publish

    @property
    def input_disk(self) -> str | None:
        return self.parent_download.reference if self.parent_download else self.parent

    def needs(self) -> Iterator[Need]:
        yield boot.kernel_need()
        yield boot.init_need()
        yield from initramfs.package_needs()
        yield boot_counting.need()

    def run(self, target: Target) -> None:
        commit.make(
            target,
            commit.CommitPlan(
                ref=self.ref,
                stateroot=self.stateroot,
                version=self.version,
                subject=self.subject,
                counted_boots=self.boot_counting,
                publishes=self.publishes,
                remote=self.remote,
                gpg_secret=self.sign.gpg_secret if self.sign else None,
                has_parent=self.input_disk is not None,
            ),
        )

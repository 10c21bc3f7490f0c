"""Stage ostree: the system as a commit that machines update to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from particle_agent.contract.needs import Need
from particle_agent.contract.options import (
    Between,
    HostTree,
    Options,
    Place,
    SecretName,
    Text,
    refuse,
    repeated,
)
from particle_agent.contract.values import Download
from particle_agent.contract.wire import OutputName
from particle_agent.ostree import commit, preparation, remote
from particle_agent.ostree.image import written
from particle_agent.ostree.image.choices import (
    AutomaticUpdates,
    Choices,
    Etc,
    RootSettings,
    UserRules,
    Var,
)
from particle_agent.ostree.remote import Remote
from particle_agent.ostree.repositories.commit_record import CHECKSUM
from particle_agent.stages.base import Architecture, StageOptions
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
Publication = Literal["repository", "delta", "oci-archive"]
# The controls of C1, and the two line ends of Unicode, count as control characters.
OneLine = Annotated[
    str,
    Text("one line without control characters", r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+", 200),
]
MetadataKey = Annotated[
    str,
    Text(
        "a key such as 'org.example.build'",
        r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_][A-Za-z0-9_-]*)*",
        100,
    ),
]
# ostree_validate_collection_id(): a name as of D-Bus.
CollectionId = Annotated[
    str,
    Text(
        "an ID such as 'org.example.Edge'",
        r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+",
        255,
    ),
]
# The keys that ostree(1) and machines take for something else.
RESERVED = re.compile(r"version|(ostree|rpmostree|particle-os)\..*")


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
    metadata: Mapping[MetadataKey, OneLine] = field(default_factory=dict)
    """More keys and texts of the commit, which `ostree show` prints."""
    collection_id: CollectionId | None = None
    """The ID of the collection that the ref belongs to. Machines then refuse a commit of another
    collection, also from the right server."""
    ref_binding: tuple[CommitRef, ...] = ()
    """More refs under which machines accept the commit. It is always bound to `ref`."""
    sign: Sign | None = None
    """The signature of the commit. Its public key is part of the commit, and is published as
    NAME.ostree.gpg."""
    remote: Remote | None = None
    """The server that machines update from. Without it, machines do not update."""
    publish: tuple[Publication, ...] = ("repository",)
    """The files that the build publishes in addition to a disk: `repository` is NAME.ostree.tar, a
    repository for any web server, `delta` is NAME.delta, the difference to the parent in one file,
    for machines without a network, and `oci-archive` is NAME.oci.tar, a container image in the form
    that bootc wants."""
    boot_counting: Annotated[int, Between(0, 9)] = 3
    """The number of boots within which an update must succeed, or the machine returns to the
    version before it. 0 does not count."""

    var: Var = "factory"
    """The content of /var. With `factory`, each file comes once to each machine, also with an
    update. With `initial`, the first version of a machine brings its content, and no update does.
    With `refuse`, content that no rule of tmpfiles.d makes is an error."""
    users: UserRules = "sysusers"
    """The way of the system's users and groups to machines whose /etc/passwd or /etc/group differs
    from the image's. With `sysusers`, the commit has rules of sysusers.d for them. With `merge`,
    only those of packages."""
    etc: Etc = "persistent"
    """Whether machines keep changes of /etc. With `transient`, each boot starts with the /etc of
    the commit, and a new machine-id and new SSH host keys."""
    composefs: bool = False
    """Whether machines mount the commit as a composefs, which no program can change. Debian 14
    (forky) is the first suite with it, and `qemu` cannot write its disk yet."""
    automatic_updates: AutomaticUpdates = "none"
    """Whether machines update every day. With `stage`, the next boot starts the new version. With
    `apply`, the machine also reboots."""

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
        refuse(self._faults())
        if self.sign and self.sign.gpg_secret not in {secret.name for secret in self.secrets}:
            place = ("sign", "gpg-secret")
            refuse([(place, f"gpg-secret: 'secrets' names no '{self.sign.gpg_secret}'")])
        if self.remote and self.remote.verify and self.sign is None:
            message = "verify: the commit has no signature; write 'sign', or 'verify: false'"
            refuse([(("remote", "verify"), message)])

    def _faults(self) -> Iterator[tuple[Place, str]]:
        for key in self.metadata:
            if RESERVED.fullmatch(key):
                hint = "; write the option 'version'" if key == "version" else ""
                yield ("metadata", key), f"metadata: OSTree itself uses the key '{key}'{hint}"
        for index, ref in enumerate(self.ref_binding):
            if ref == self.ref or ref in self.ref_binding[:index]:
                yield ("ref-binding", index), f"ref-binding: the commit is bound to '{ref}' already"
        if self.automatic_updates != "none" and self.remote is None:
            message = "automatic-updates: machines have no server; write 'remote'"
            yield ("automatic-updates",), message

    @property
    def publishes(self) -> tuple[OutputName, ...]:
        return (*self.publish, "key") if self.sign else self.publish

    @property
    def counts_boots(self) -> bool:
        """Whether a machine leaves an update that does not succeed within its boots."""
        return self.boot_counting > 0

    @property
    def is_verified(self) -> bool:
        """Whether machines verify the signature of the commit."""
        return self.sign is not None and self.remote is not None and self.remote.verify

    @property
    def input_disk(self) -> str | None:
        return self.parent_download.reference if self.parent_download else self.parent

    def boot_needs(self, architecture: Architecture) -> Iterator[Need]:
        yield from preparation.boot_needs(architecture)

    def needs(self) -> Iterator[Need]:
        yield from preparation.needs(self.boot_counting)
        if self.is_verified:
            yield remote.need()

    def rewrites(self) -> Iterator[tuple[str, str]]:
        yield from written.rewrites()
        if self.remote is not None:
            for path in remote.paths(self.remote.name):
                yield path, "set the options of 'remote' in the stage 'ostree'"

    def run(self, target: Target) -> None:
        commit.make(
            target,
            commit.CommitPlan(
                ref=self.ref,
                stateroot=self.stateroot,
                version=self.version,
                subject=self.subject,
                publishes=self.publishes,
                remote=self.remote,
                gpg_secret=self.sign.gpg_secret if self.sign else None,
                has_parent=self.input_disk is not None,
                bindings=commit.Bindings(self.metadata, self.collection_id, self.ref_binding),
                choices=Choices(
                    counted_boots=self.boot_counting,
                    root=RootSettings(self.etc, self.composefs),
                    var=self.var,
                    users=self.users,
                    automatic_updates=self.automatic_updates,
                    container="oci-archive" in self.publish,
                ),
            ),
        )

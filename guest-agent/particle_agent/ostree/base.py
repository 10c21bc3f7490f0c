"""A commit as the base: its tree becomes the target, and its record lets `qemu` deploy it.

The commit may be anybody's. Its programs run in the target only, whose files are copies.
"""

from __future__ import annotations

import base64
import configparser
import re
from collections.abc import Iterator
from contextlib import suppress

from particle_agent.contract.wire import BaseCommit
from particle_agent.disk.reading import Tree
from particle_agent.errors import CommandFailed, StageError
from particle_agent.ostree.image.layout import ETC
from particle_agent.ostree.remote import DIRECTORY, ORIGIN
from particle_agent.ostree.repositories import given
from particle_agent.ostree.repositories.commit_record import CommitRecord, workshop
from particle_agent.ostree.repositories.given import Named
from particle_agent.ostree.repositories.repository import OstreeRepository
from particle_agent.ostree.repositories.signing import public_key
from particle_agent.target.target import Target

BASE = Named(
    "the base's repository", "Name the published NAME.ostree.tar, or make the repository again."
)
MODULES = "/usr/lib/modules"
# The limits of what is read from a commit: bytes of a file, and files of remotes.
SETTINGS_LIMIT, REMOTES_LIMIT = 1 << 16, 20
REMOTE = re.compile(r'remote "([A-Za-z0-9_][A-Za-z0-9_-]{0,59})"')


def take(target: Target, wanted: BaseCommit) -> None:
    """Makes the commit on the disk of the host the target, whose directory is there and empty.

    Raises StageError for a damaged repository, for a commit without a good signature of the wanted
    key, and for one that no disk can boot.
    """
    received = given.unpack(target, workshop(target) / "given", BASE)
    given.configure(received)
    signer = None if wanted.key is None else _check_signature(received, wanted)
    repository = _copy(received, wanted)
    target.root.rmdir()
    # Without hard links: a program of the commit could change the objects, too.
    repository.run("checkout", "--force-copy", wanted.checksum, str(target.root))
    tree = Tree(target.root)
    CommitRecord(
        ref=wanted.ref,
        checksum=wanted.checksum,
        stateroot=wanted.stateroot,
        kernel=_kernel(tree),
        publishes=(),
        version=wanted.version,
        signer=signer,
        remote=_remote(tree, wanted.ref),
        collection=None,
    ).write(target)
    target.run(["rm", "--recursive", "--", str(received.place)])


def _check_signature(received: OstreeRepository, wanted: BaseCommit) -> str:
    """Returns the fingerprint of the wanted key, which has signed the commit."""
    target = received.target
    with public_key(target, base64.b64decode(wanted.key or "")) as key:
        try:
            given.check_signature(received, wanted.checksum, key)
        except CommandFailed as error:
            raise StageError(
                "the commit has no good signature of the key in 'base-image-key', "
                f"{key.fingerprint}",
                hint="Use a commit of this key, or name the key of the one who has signed it.",
                tail=error.tail,
            ) from error
        target.reporter.note(f"the base's commit has a good signature of the key {key.fingerprint}")
        return key.fingerprint


def _copy(received: OstreeRepository, wanted: BaseCommit) -> OstreeRepository:
    """Copies the commit into the repository of the disk, and checks each of its objects."""
    repository = OstreeRepository(received.target, workshop(received.target) / "repository")
    repository.create("bare")
    # The disk of the VM is thrown away, or frozen as a whole.
    repository.run("config", "set", "core.fsync", "false")
    with BASE.blamed(f"{BASE.what} is damaged"):
        repository.run("pull-local", "--untrusted", str(received.place), wanted.ref)
    if repository.checksum(wanted.ref) != wanted.checksum:
        raise StageError(f"{BASE.what} has changed while it was read", hint=BASE.hint)
    return repository


def _kernel(tree: Tree) -> str:
    """The version of the only kernel of a commit. Raises StageError."""
    found = [v for v in tree.names(MODULES) if tree.is_file(f"{MODULES}/{v}/vmlinuz")]
    if len(found) != 1 or not tree.names(ETC):
        raise StageError(
            "the base's commit is no system that OSTree boots",
            hint=f"It needs {ETC}, and one kernel in {MODULES}/VERSION.",
        )
    return found[0]


def _remote(tree: Tree, ref: str) -> str:
    """The name of the server that the machines of a commit update from.

    It is the one whose `branches` have the ref, or the only one.
    """
    found = list(_remotes(tree))
    return next((name for name, branches in found if ref in branches), None) or (
        found[0][0] if len(found) == 1 else ORIGIN
    )


def _remotes(tree: Tree) -> Iterator[tuple[str, list[str]]]:
    """The names and the branches of the servers that a commit configures."""
    place = f"/usr{DIRECTORY}"
    for file in [n for n in tree.names(place) if n.endswith(".conf")][:REMOTES_LIMIT]:
        read = configparser.RawConfigParser(strict=False)
        with suppress(configparser.Error):
            read.read_string(tree.read(f"{place}/{file}", SETTINGS_LIMIT))
        for section in read.sections():
            if named := REMOTE.fullmatch(section):
                branches = read.get(section, "branches", fallback="")
                yield named[1], [branch.strip() for branch in branches.split(";")]

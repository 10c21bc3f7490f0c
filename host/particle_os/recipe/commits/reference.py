"""References to the commits of OSTree repositories, as base images."""

from __future__ import annotations

from typing import get_args

from particle_agent.contract.options import Text
from particle_agent.stages.output.ostree import CommitRef

from particle_os.errors import UsageError, printable

# containers-transports(5) uses this name for something else.
COMMIT = "ostree:"
COMMIT_FORM = "ostree:REPOSITORY#REF"


def is_commit(reference: str) -> bool:
    """Whether a reference names a commit of an OSTree repository."""
    return reference.startswith(COMMIT)


def commit_of(reference: str) -> tuple[str, str]:
    """The path of the repository, and the ref, in the reference of a commit.

    Raises UsageError for a reference without one of them, and for a ref that no commit can have.
    """
    path, mark, ref = reference.removeprefix(COMMIT).rpartition("#")
    if not mark or not path or not ref:
        missing = "repository" if mark and not path else "ref"
        raise UsageError(
            f"{printable(reference, 200)} names no {missing}",
            hint=f"Write {COMMIT_FORM}, such as {COMMIT}edge.ostree.tar#debian/13/amd64/edge.",
        )
    if "://" in path:
        raise UsageError(
            f"{printable(reference, 200)} is a URL, and the base image is a file or a directory",
            hint=f"Download NAME.ostree.tar, and write {COMMIT_FORM}.",
        )
    constraint: Text = get_args(CommitRef)[1]
    if not constraint.accepts(ref):
        raise UsageError(
            f"{printable(reference, 200)}: expected {constraint.what} after the '#'",
            hint="'particle-os ostree log REPOSITORY' names the refs of a repository.",
        )
    return path, ref

"""The repository that machines update from, as an archive for any web server."""

from __future__ import annotations

from particle_agent.ostree.commit_record import CommitRecord, workshop
from particle_agent.ostree.repository import OstreeRepository
from particle_agent.system import tarball
from particle_agent.target.target import Target

# ostree.repo-config(5). The level of zlib; files in a repository are compressed one by one.
LEVEL = 1
# The owners and times of the files of a repository mean nothing; these make the archive the same.
OPTIONS = ("--owner=0", "--group=0", "--mode=u=rwX,go=rX", "--mtime=@0")


def write(target: Target, record: CommitRecord) -> None:
    """Writes the repository of the commit to its own output disk."""
    repository = OstreeRepository(target, workshop(target) / "archive")
    repository.create("archive")
    repository.run("config", "set", "archive.zlib-level", str(LEVEL))
    repository.pull(OstreeRepository(target, workshop(target) / "repository"), record.ref)
    repository.run("summary", "--update")
    tarball.write(target, repository.place, "repository", OPTIONS)

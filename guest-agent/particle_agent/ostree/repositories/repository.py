"""Repositories of OSTree: commits, and the deployment of one of them (ostree(1))."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from particle_agent.errors import CommandFailed, StageError
from particle_agent.ostree.repositories.commit_record import CHECKSUM, workshop
from particle_agent.target.target import Target

# ostree.repo-config(5). The level of zlib; files in a repository are compressed one by one.
LEVEL = 1
DIFFERENCE_SECONDS = 600.0
# A line of `ostree show`.
DATE = re.compile(r"^Date: +([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8} [+-][0-9]{4})$", re.MULTILINE)


@dataclass(frozen=True)
class OstreeRepository:
    """A repository in a directory of the VM."""

    target: Target
    place: Path

    def run(self, verb: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        """Runs a command of ostree(1) on the repository. Raises CommandFailed."""
        self.target.run(["ostree", verb, f"--repo={self.place}", *arguments], env=env)

    def create(self, mode: str, *arguments: str) -> None:
        """Makes the empty repository; `mode` is `bare` or `archive`."""
        self.place.mkdir(parents=True)
        self.run("init", f"--mode={mode}", *arguments)

    def commit(self, tree: Path, ref: str, date: int, arguments: Sequence[str]) -> str:
        """Commits a directory; returns the checksum. `date` is in seconds since 1970."""
        self.run("commit", f"--branch={ref}", f"--timestamp=@{date}", *arguments, str(tree))
        return self.checksum(ref)

    def checksum(self, ref: str) -> str:
        """The checksum of the newest commit of a ref. Raises StageError."""
        argv = ["ostree", "rev-parse", f"--repo={self.place}", ref]
        found = self.target.capture_outside(argv).strip()
        if not CHECKSUM.fullmatch(found):
            raise StageError(f"OSTree names no checksum for {ref}, but {found!r}")
        return found

    def metadata(self, checksum: str, key: str) -> str | None:
        """A text of the metadata of a commit; None when there is none."""
        argv = ["ostree", "show", f"--repo={self.place}", f"--print-metadata-key={key}", checksum]
        try:
            found = self.target.capture_outside(argv).strip()
        except CommandFailed:
            return None
        return found[1:-1] if found[:1] == found[-1:] == "'" else None

    def date(self, checksum: str) -> float | None:
        """The date of a commit, in seconds since 1970; None when OSTree shows none."""
        shown = self.target.capture_outside(["ostree", "show", f"--repo={self.place}", checksum])
        if (found := DATE.search(shown)) is None:
            return None
        return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S %z").timestamp()

    def file(self, checksum: str, path: str) -> str:
        """The text of a file of a commit; empty when the commit lacks it."""
        try:
            argv = ["ostree", "cat", f"--repo={self.place}", checksum, path]
            return self.target.capture_outside(argv)
        except CommandFailed:
            return ""

    def difference(self, before: str, after: str) -> str:
        """The files that differ in two commits: a line for each."""
        argv = ["ostree", "diff", f"--repo={self.place}", before, after]
        return self.target.capture_outside(argv, timeout=DIFFERENCE_SECONDS)

    def pull(self, source: OstreeRepository, *refs: str) -> None:
        """Copies the newest commits of refs from another repository."""
        self.run("pull-local", str(source.place), *refs)


def archive(target: Target) -> OstreeRepository:
    """The repository to publish. It has the parent of the commit, if there is one."""
    repository = OstreeRepository(target, workshop(target) / "archive")
    if not repository.place.exists():
        repository.create("archive")
        repository.run("config", "set", "archive.zlib-level", str(LEVEL))
    return repository

"""Copies a directory of the host, which is attached as a tar archive, into the target."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from particle_agent.errors import StageError
from particle_agent.stages.contents.placing import Owner, Patterns, Placer, owner_of
from particle_agent.target.target import Target

# The name of the copied directory itself in its archive.
TOP = "."
WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True)
class Copy:
    """A directory to copy to `path`; `modes` and `owners` are by patterns for paths in the image.

    `owner` is for what no pattern of `owners` matches.
    """

    path: str
    owner: Owner
    modes: Mapping[str, str]
    owners: Mapping[str, str]

    def run(self, target: Target, placer: Placer, archive: Path) -> None:
        """Copies over the existing files. Raises StageError; a pattern without a match is one."""
        modes, owners = Patterns(self.modes), Patterns(self.owners)
        loose: list[str] = []
        known: dict[str, Owner] = {}
        with tarfile.open(archive) as members:
            for member in members:
                path = self._path(member.name)
                text = owners.get(path) or ""
                if text not in known:
                    known[text] = _owner(target, text, path)
                ruled = known[text]
                owner = ruled.over(self.owner)
                named = modes.get(path)
                mode = member.mode if named is None else int(named, 8)
                if member.isdir():
                    placer.directory(
                        path,
                        mode=None if named is None else mode,
                        owner=ruled,
                        new_mode=mode,
                        new_owner=owner,
                    )
                elif member.issym():
                    placer.link(path, member.linkname, owner=owner)
                elif data := members.extractfile(member):
                    placer.file(path, data, mode=mode, owner=owner)
                    loose += [path] if mode & WRITABLE_BY_OTHERS else []
        self._refuse_unused(modes, owners)
        if loose:
            target.reporter.note(
                f"{self.path}: users other than the owner can write {_few(loose)}; set 'modes', or "
                "copy from a directory made with umask 022"
            )

    def _path(self, name: str) -> str:
        top = self.path.rstrip("/")
        return (top or "/") if name == TOP else f"{top}/{name}"

    def _refuse_unused(self, *patterns: Patterns) -> None:
        for text in (text for each in patterns for text in each.unused()):
            raise StageError(
                f"{self.path}: the pattern {text} matches nothing that is copied",
                hint="Patterns match paths in the image: '*' matches within a name, '**' across "
                "directories.",
            )


def _owner(target: Target, text: str, path: str) -> Owner:
    """The owner for USER, USER:GROUP or :GROUP."""
    user, _, group = text.partition(":")
    return owner_of(target, user or None, group or None, path)


def _few(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{len(paths)} files, such as {paths[0]}"

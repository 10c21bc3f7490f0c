"""Looks at the parent of a commit before anything is built: the faults that the host can see."""

from __future__ import annotations

from pathlib import Path

from particle_agent.contract.inspection import STATEROOT

from particle_os.errors import UsageError
from particle_os.ostree import history, objects
from particle_os.ostree.files import RepositoryFiles, is_archive, opened


def fault(path: Path, ref: str, stateroot: str) -> str | None:
    """The reason why a repository cannot be the parent of a commit; None if it seems it can."""
    try:
        with opened(path) as files:
            return _fault(files, ref, stateroot)
    except UsageError as error:
        return error.brief


def _fault(files: RepositoryFiles, ref: str, stateroot: str) -> str | None:
    if not is_archive(files):
        return "the parent is no repository of the mode 'archive'"
    known = history.refs(files)
    if ref not in known:
        return f"the parent has no ref '{ref}', but {', '.join(sorted(known)[:5]) or 'none'}"
    other = objects.commit(files, known[ref]).texts.get(STATEROOT, stateroot)
    if other != stateroot:
        return f"the parent is for the stateroot '{other}', and this commit for '{stateroot}'"
    return None

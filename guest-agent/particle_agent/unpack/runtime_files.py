"""Files that a container runtime leaves in an exported file system, such as `docker export` gives.

systemd takes /.dockerenv and /run/.containerenv as the sign of a container (detect_container() in
src/basic/virt.c). The runtime mounts its own hosts, hostname and resolv.conf over empty files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from particle_agent.target.inside import resolve

MARKS = ("/.dockerenv", "/.dockerinit", "/run/.containerenv")
TARGETS = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
MERGED = ("/bin", "/sbin", "/lib")


def notes(root: Path) -> Iterator[str]:
    """Removes the files from a base, and yields notes about them and about replaced links."""
    if removed := [name for name in (*MARKS, *TARGETS) if _is_left(root, name)]:
        for name in removed:
            _place(root, name).unlink()
        yield f"files of a container runtime are removed from the base: {', '.join(removed)}"
    linked = [name for name in MERGED if _place(root, name).is_symlink()]
    replaced = [name for name in MERGED if _place(root, name).is_dir() and name not in linked]
    if linked and replaced:
        yield (
            f"{', '.join(replaced)}: a directory in the base has replaced the link to /usr; Debian "
            "no longer supports this (UsrMerge)"
        )


def _place(root: Path, name: str) -> Path:
    path = PurePosixPath(name)
    return resolve(root, str(path.parent)) / path.name


def _is_left(root: Path, name: str) -> bool:
    path = _place(root, name)
    if path.is_symlink() or not path.is_file():
        return False
    return name in MARKS or not path.stat().st_size

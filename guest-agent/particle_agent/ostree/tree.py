"""Turns the system under construction into the tree of an OSTree commit.

In a deployment /usr is read-only, /etc is a copy of /usr/etc that updates merge, and /var belongs
to the machine (https://ostreedev.github.io/ostree/adapting-existing/).
"""

from __future__ import annotations

import os
from pathlib import Path

from particle_agent.disk.fstab import FileSystemTable
from particle_agent.errors import StageError
from particle_agent.ostree.image.layout import (
    DATABASE,
    EMPTY,
    ETC,
    HIDDEN,
    LINKS,
    MOVED,
    OLD_DATABASE,
    SURPLUS,
)
from particle_agent.system import generalize
from particle_agent.target.target import Target

HINT = "Remove one of them in a 'run' or 'cleanup' stage."
TMP_MOUNT = "tmp.mount"


def is_commit(target: Target) -> bool:
    """Whether the target has the form of a commit."""
    return target.exists(ETC) and target.exists("/sysroot")


def move_kernel(target: Target, version: str) -> None:
    """Moves the kernel to the place where OSTree looks for it, and removes all others of /boot."""
    modules = f"/usr/lib/modules/{version}"
    for name, there in (("vmlinuz", "vmlinuz"), ("initrd.img", "initramfs.img")):
        with target.open(f"/boot/{name}-{version}") as data:
            target.write_from(data, f"{modules}/{there}")
    for name in target.list("/boot"):
        target.remove(f"/boot/{name}")
    for path in SURPLUS:
        target.remove(path)


def empty(target: Target) -> None:
    """Empties the directories whose files no machine would see."""
    with target.mounted(target.root, "--bind") as place:
        generalize.empty(place, HIDDEN)


def convert(target: Target) -> None:
    """Moves the files of the target to their places in a commit. /boot is empty before.

    The directories that a build mounts in the target keep their places. Raises StageError for an
    image whose files have no such places.
    """
    _check(target)
    _move(target, OLD_DATABASE, DATABASE)
    for path, name in MOVED.items():
        if not target.is_link(path):
            _fix_links(target, path)
            _move(target, path, f"/var/{name}")
        elif target.path(path) != target.path(f"/var/{name}"):
            # Another link of the image still leads to the same directory.
            continue
        elif not target.exists(path):
            target.make_directory(f"/var/{name}", mode=0o700 if path == "/root" else 0o755)
        target.symlink(path, "../" * (path.count("/") - 1) + f"var/{name}")
    for path, to in LINKS.items():
        target.remove(path)
        target.symlink(path, to)
    for path, mode in EMPTY.items():
        if target.is_link(path) or not target.path(path).is_dir():
            target.remove(path)
            target.make_directory(path, mode=mode)
    # The disk of each machine has its own lines.
    FileSystemTable([], ()).write(target, points=False)
    _mount_tmp(target)
    _move(target, "/etc", ETC)


def _check(target: Target) -> None:
    for path in ("/etc", "/usr", "/var"):
        if target.is_link(path) or not target.path(path).is_dir():
            raise StageError(
                f"{path} of the image is no directory",
                hint="A commit needs it as a directory of its own, and no link.",
            )


def _fix_links(target: Target, path: str) -> None:
    """Makes the relative links of a directory absolute that lead out of it: they will not there."""
    top = target.path(path)
    for directory, directories, files in os.walk(top):
        here = Path(directory).relative_to(top)
        for place in (Path(directory, name) for name in (*directories, *files)):
            text = os.readlink(place) if place.is_symlink() else ""
            if Path(os.path.normpath(text)).parts.count("..") > len(here.parts):
                place.unlink()
                place.symlink_to(os.path.normpath(path / here / text))


def _move(target: Target, path: str, to: str) -> None:
    """Moves a directory of the target to `to`. A missing one becomes an empty directory.

    Raises StageError when `to` is there, and cannot take the files.
    """
    new = target.path(to, follow=False)
    if target.path(path) == new:
        # A link to the right place; its path is not kept.
        target.remove(path)
        return
    if not target.path(path).is_dir():
        target.remove(path)
        target.make_directory(path)
    place = target.path(path)
    if new.is_symlink() and target.path(to) == place:
        new.unlink()
    target.make_directory(to.rpartition("/")[0])
    try:
        if new.is_dir() and not new.is_symlink() and os.listdir(new):
            _merge(place, new, path, to)
        else:
            place.rename(new)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise StageError(f"{path} cannot become {to} of a commit: {why}", hint=HINT) from error
    target.remove(path)


def _merge(place: Path, new: Path, path: str, to: str) -> None:
    for entry in sorted(place.iterdir()):
        if os.path.lexists(new / entry.name):
            raise StageError(f"{path} becomes {to}, and both have {entry.name!r}", hint=HINT)
        entry.rename(new / entry.name)


def _mount_tmp(target: Target) -> None:
    """Lets systemd mount a tmpfs on /tmp, which is otherwise read-only with the root."""
    installed, shipped = f"/usr/lib/systemd/system/{TMP_MOUNT}", f"/usr/share/systemd/{TMP_MOUNT}"
    if not target.exists(installed) and target.exists(shipped):
        with target.open(shipped) as data:
            target.write_from(data, installed)
    if target.exists(installed):
        target.symlink(
            f"/usr/lib/systemd/system/local-fs.target.wants/{TMP_MOUNT}", f"../{TMP_MOUNT}"
        )

"""Publishes files as one transaction, and keeps complete files in the cache.

A publication moves all of its files to their places in a directory, or none.

The new files are complete in a hidden directory on the same file system before anything changes:

1. One rename gives the hidden directory the name TRANSACTION. From here on the new files win.
2. SHA256SUMS is replaced by one without the lines of the files that change. A comment names them.
3. The new files are renamed to their places, one by one.
4. SHA256SUMS is replaced by one with the lines of the new files.
5. The hidden directory is removed, its manifest first.

All of this happens under a lock on the directory. If the process is killed or the machine loses its
power before step 1, nothing has changed. Afterwards `finish` continues where the process stopped:
every step can be repeated. After each step the directory is synced, so a power failure cannot
change the order of the steps.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from particle_os.errors import InfrastructureError, NotPublished
from particle_os.system.deadline import Deadline
from particle_os.system.interrupt import held_back
from particle_os.system.regular_file import open_regular, read_regular
from particle_os.system.workspace import HIDDEN, failed_call, locked_directory, remove_directories

SUMS = "SHA256SUMS"
# The asterisk marks a file that was read in binary mode, which makes no difference.
SUM_LINE = re.compile(r"([0-9a-fA-F]+) [ *](.+)")
TRANSACTION = f"{HIDDEN}publication"
MANIFEST, MEANWHILE, REPLACED = "manifest.json", f"{SUMS}.meanwhile", "replaced"
NOTE = "# particle-os is replacing {}. Check again when this line is gone.\n"
# The names of files that are being replaced, and of the descriptors of this process.
LEFT, DESCRIPTOR = re.compile(re.escape(HIDDEN) + "[0-9a-f]{12}"), "/proc/self/fd/{}"
# The answers of file systems and kernels to O_TMPFILE that they do not know (open(2)).
NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
LOCK_SECONDS = 600.0
# In bytes; a line has about 100.
TEXT_LIMIT = 16 << 20
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


@dataclass(frozen=True)
class Change:
    """The names that a publication changes in a directory.

    `files` and `folders` are the new ones. `removed` names are removed, and `stale` names if they
    are files; `outdated` names are removed if SHA256SUMS lists them. `sums` (name to SHA-256) are
    the new lines for SHA256SUMS. Without `sums`, SHA256SUMS is not touched.
    """

    files: Sequence[str]
    folders: Sequence[str] = ()
    removed: Sequence[str] = ()
    outdated: Sequence[str] = ()
    stale: Sequence[str] = ()
    sums: Mapping[str, str] | None = None

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of file that each name may already have in the directory."""
        files = [*self.files, *([SUMS] if self.sums is not None else [])]
        kinds = dict.fromkeys(files, "a file")
        return kinds | dict.fromkeys([*self.folders, *self.removed], "a directory")


@dataclass(frozen=True)
class _Manifest:
    """The names that a transaction moves to their places, or removes."""

    files: Sequence[str]
    folders: Sequence[str]
    removed: Sequence[str]


def obstacle(directory: Path, change: Change) -> str | None:
    """A description of the first file that is in the way of a change; None without any.

    A regular file may be replaced by a file, and a directory by a folder, but nothing else.
    """
    for name, expected in change.kinds.items():
        if (found := _kind(directory / name)) not in (None, expected):
            return f"{directory / name} is {found}, and the build would replace it by {expected}"
    return None


def publish(staging: Path, directory: Path, change: Change) -> None:
    """Moves the files of `staging`, a directory inside `directory`, to their places.

    `staging` and all other files in it are removed. Raises NotPublished when the files cannot all
    be moved: then they are still in `staging`, or `finish` can move them.
    """
    try:
        _sync_content(staging, change)
        deadline = Deadline.after(LOCK_SECONDS, "waiting for the lock")
        with locked_directory(directory, deadline) as descriptor:
            _finish(directory, descriptor)
            _prepare(staging, directory, change)
            with held_back():
                staging.rename(directory / TRANSACTION)
                _finish(directory, descriptor)
    except (OSError, InfrastructureError) as error:
        raise _failure(error, directory) from error


def replace(place: Path, data: bytes) -> None:
    """Writes a file, which then is complete and replaces an older one of its name.

    Only a regular file is replaced. The new file has no name until it is complete, where the file
    system can do that. Raises OSError.
    """
    check_replaceable(place)
    _remove_left(place.parent.absolute())
    made = place.with_name(f"{HIDDEN}{secrets.token_hex(6)}")
    with held_back():
        try:
            with _unnamed_file(place.parent) or made.open("xb") as file:
                # Until it is closed, no other process takes it for the file of a killed one.
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                if os.fstat(file.fileno()).st_nlink == 0:
                    # With a descriptor of a directory, Python follows the link (linkat(2)).
                    number = file.fileno()
                    os.link(DESCRIPTOR.format(number), made, src_dir_fd=number)
                made.rename(place)
        finally:
            made.unlink(missing_ok=True)


def _unnamed_file(directory: Path) -> BinaryIO | None:
    """A new file without a name, which a killed process does not leave; None if there is none."""
    if not Path(DESCRIPTOR.format("")).is_dir():
        return None
    try:
        descriptor = os.open(directory, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in NO_UNNAMED_FILES:
            return None
        raise
    return os.fdopen(descriptor, "wb")


@functools.cache
def _remove_left(directory: Path) -> None:
    """Removes the files that killed processes have left, once in a run."""
    with suppress(OSError):
        for name in filter(LEFT.fullmatch, os.listdir(directory)):
            with suppress(OSError), open_regular(directory / name, follow=False) as file:
                # The writer of a new file holds its lock.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (directory / name).unlink()


def check_replaceable(place: Path) -> None:
    """Raises OSError unless there is nothing, or a regular file, under the name `place`."""
    if (kind := _kind(place)) not in (None, "a file"):
        raise OSError(errno.EEXIST, f"it is {kind}", str(place))


def keep(made: Path, place: Path) -> None:
    """Moves a complete file or directory to its place, where a later run finds all of it or none.

    A file replaces an older one; a directory needs a free place. Both are on one file system.
    Raises OSError.
    """
    for path in (*made.rglob("*"), made):
        _sync(path)
    made.rename(place)
    _sync(place.parent)


def finish(directory: Path) -> bool:
    """Finishes a publication that was interrupted; returns whether there was one.

    A process that publishes in the directory at this moment is left alone. Raises NotPublished when
    the publication cannot be finished, or the directory cannot be locked.
    """
    try:
        with locked_directory(directory, None) as descriptor:
            return _finish(directory, descriptor)
    except BlockingIOError:
        return False
    except (OSError, InfrastructureError) as error:
        raise _failure(error, directory) from error


def _failure(error: OSError | InfrastructureError, directory: Path) -> NotPublished:
    shown = failed_call(error) if isinstance(error, OSError) else error
    hint = shown.hint
    # A NotPublished is about the transaction itself, which then holds no files of ours.
    if not isinstance(error, NotPublished) and (directory / TRANSACTION).exists():
        hint = (
            f"{hint or 'Remove the cause.'} The new files are in {directory / TRANSACTION}; "
            f"the next build into {directory} moves them to their places."
        )
    return NotPublished(f"publishing in {directory} failed: {shown.brief}", hint=hint)


def _kind(path: Path) -> str | None:
    """The kind of file that `path` itself names; None when there is none."""
    try:
        return _KINDS[stat.S_IFMT(path.lstat().st_mode)]
    except FileNotFoundError:
        return None


def listed_sums(directory: Path) -> dict[str, str]:
    """The SHA-256 of each published file of a directory, by its name. Raises OSError."""
    return _sum_lines(directory)


def _sync_content(staging: Path, change: Change) -> None:
    for path in (staging / name for name in (*change.files, *change.folders)):
        for inner in path.rglob("*") if path.is_dir() else ():
            _sync(inner)
        if path.exists() or path.name in change.files:
            _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(staging: Path, directory: Path, change: Change) -> None:
    """Writes everything that the transaction needs, so that later steps only rename files."""
    if (found := obstacle(directory, change)) is not None:
        raise NotPublished(found, hint="Move it away.")
    removed = [*change.removed, *(n for n in change.stale if _kind(directory / n) == "a file")]
    if change.sums is not None:
        lines = _sum_lines(directory)
        outdated = [n for n in change.outdated if n in lines and _kind(directory / n) == "a file"]
        removed += outdated
        others = {k: v for k, v in lines.items() if k not in (*change.files, *outdated)}
        note = NOTE.format(", ".join(sorted({*change.sums, *outdated})))
        _write(staging / MEANWHILE, note + _sum_text(others))
        _write(staging / SUMS, _sum_text({**others, **change.sums}))
    (staging / REPLACED).mkdir()
    manifest = _Manifest(change.files, change.folders, removed)
    _write(staging / MANIFEST, json.dumps(asdict(manifest)))
    _sync(staging)


def _sum_lines(directory: Path) -> dict[str, str]:
    """The digests of SHA256SUMS by file name, without missing files. Format: sha256sum(1)."""
    try:
        text = read_regular(directory / SUMS, TEXT_LIMIT, follow=False).decode("utf-8", "replace")
    except FileNotFoundError:
        return {}
    lines = filter(None, map(SUM_LINE.fullmatch, text.splitlines()))
    return {line[2]: line[1] for line in lines if (directory / line[2]).exists()}


def _sum_text(lines: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(lines.items()))


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _finish(directory: Path, descriptor: int) -> bool:
    """Carries out the steps of a transaction that are still to do; needs the lock."""
    place = directory / TRANSACTION
    if _kind(place) is None:
        return False
    _check_owner(place)
    try:
        manifest = _read_manifest(place)
    except FileNotFoundError:
        # The transaction is complete, except for the removal of its directory.
        remove_directories(place)
        return False
    os.fsync(descriptor)
    _move(place / MEANWHILE, directory / SUMS)
    os.fsync(descriptor)
    for name in manifest.removed:
        _set_aside(directory / name, place / REPLACED)
    for name in manifest.folders:
        if _kind(place / name) is not None:
            _set_aside(directory / name, place / REPLACED)
            _move(place / name, directory / name)
    for name in manifest.files:
        _move(place / name, directory / name)
    os.fsync(descriptor)
    _move(place / SUMS, directory / SUMS)
    os.fsync(descriptor)
    (place / MANIFEST).unlink()
    _sync(place)
    remove_directories(place)
    return True


def _check_owner(place: Path) -> None:
    """Raises NotPublished unless the transaction is this user's own: others may plant one."""
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise NotPublished(
            f"{place} belongs to another user or program",
            hint="Remove it, or name another directory with --output.",
        )


def _read_manifest(place: Path) -> _Manifest:
    """The manifest of a transaction. Raises FileNotFoundError, and NotPublished for a wrong one."""
    try:
        manifest = _Manifest(**json.loads(read_regular(place / MANIFEST, TEXT_LIMIT, follow=False)))
        names = [*manifest.files, *manifest.folders, *manifest.removed]
        if all(isinstance(name, str) and Path(name).name == name for name in names):
            return manifest
    except (ValueError, TypeError, RecursionError):
        pass
    raise NotPublished(f"{place / MANIFEST} is damaged", hint=f"Move {place} away.")


def _move(path: Path, to: Path) -> None:
    """Renames a file unless an earlier attempt has already done so."""
    with suppress(FileNotFoundError):
        path.rename(to)


def _set_aside(path: Path, into: Path) -> None:
    _move(path, into / str(len(os.listdir(into))))

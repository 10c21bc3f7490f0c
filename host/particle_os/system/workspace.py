"""The directories of particle-os on the host, and their removal.

The cache follows the XDG Base Directory Specification. Every run has its own directory under
`work/` and holds a lock on it. The kernel releases the lock when the process ends. So the next run
recognises the directories of killed runs and removes them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from pathlib import Path

import platformdirs

from particle_os.errors import DeadlineExceeded, InfrastructureError, NotEnoughSpace, UsageError
from particle_os.system.deadline import Deadline
from particle_os.system.interrupt import held_back
from particle_os.system.regular_file import read_regular

LOCK = "lock"
ADOPTED = "adopted"
ADOPTED_BYTES = 1 << 20
HIDDEN = ".particle-os-"
RESERVE_BYTES = 64 << 20
PLACES = "XDG_CACHE_HOME places the cache, --output the images."
_ADVICE = {
    errno.EIO: f"A disk of the host fails: the kernel's log names it. Use another disk: {PLACES}",
    errno.EROFS: f"Use a file system that can be written to: {PLACES}",
    errno.ENOENT: "If another program has removed it, run the command again.",
    errno.EACCES: f"Change the permissions of the file, or use another place: {PLACES}",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.ENFILE: "End other programs: the host has too many open files.",
    errno.EAGAIN: "End other programs, or raise the limit of processes (ulimit -u).",
    errno.ENOMEM: "End other programs: the host has too little free memory.",
}


ADVICE = "Set XDG_CACHE_HOME to a directory that you can write to."


def cache_directory() -> Path:
    """The user's cache directory. A missing directory is made, readable by the user only.

    Raises InfrastructureError when it cannot be made.
    """
    try:
        path = Path(platformdirs.user_cache_dir("particle-os"))
    except RuntimeError as error:
        raise InfrastructureError("you have no home directory", hint=ADVICE) from error
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InfrastructureError(
            f"the cache directory {path} cannot be made: {error.strerror}", hint=ADVICE
        ) from error
    return path


@contextmanager
def own_cache(directory: Path) -> Iterator[None]:
    """Puts the cache of this process into `directory` for as long as the context lasts."""
    variable = "XDG_CACHE_HOME"
    before = os.environ.get(variable)
    os.environ[variable] = str(directory)
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def data_directory(name: str) -> Path:
    """`recipes` or `vm-templates`: inside the installed package, else at the top of the clone."""
    installed = Path(str(resources.files("particle_os"))) / "data" / name
    return installed if installed.is_dir() else Path(__file__).parents[3] / name


@contextmanager
def locked(path: Path, deadline: Deadline) -> Iterator[None]:
    """Waits for an exclusive lock on the file `path`, which is made if missing, and holds it.

    Raises DeadlineExceeded, and InfrastructureError when the file system has no locks.
    """
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as descriptor:
        _lock(descriptor, path, deadline)
        yield


@contextmanager
def locked_directory(path: Path, deadline: Deadline | None) -> Iterator[int]:
    """Holds an exclusive lock on a directory, and yields its descriptor; see `locked`.

    Without a deadline it does not wait: raises BlockingIOError when another process has a lock.
    """
    with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        _lock(descriptor, path, deadline)
        yield descriptor


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Opens a file that is only locked, and ignores an error of close(2): no data can be lost."""
    # A FIFO in its place would wait for its other end.
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    try:
        yield descriptor
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _lock(descriptor: int, path: Path, deadline: Deadline | None) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if deadline is None:
                raise
            _wait_for_other(path, deadline)
        except OSError as error:
            raise InfrastructureError(
                f"{path} cannot be locked: {error.strerror}",
                hint="Use a directory on a local file system; some network ones lack flock.",
            ) from error


def _wait_for_other(path: Path, deadline: Deadline) -> None:
    try:
        time.sleep(min(0.1, deadline.remaining()))
    except DeadlineExceeded as error:
        raise DeadlineExceeded(
            f"{deadline.what}: another process holds {path}",
            hint="Wait for the other build, or end it.",
        ) from error


class Workspace:
    """A private directory for one run. The end of the run removes it and its content."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._adopted: list[Path] = []

    def adopt_directory(self, parent: Path) -> Path:
        """Makes a hidden directory in `parent` that is removed with this workspace.

        It is on the file system of `parent`: its files can be renamed into `parent` atomically.
        Raises UsageError when it cannot be made.
        """
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = parent.resolve() / f"{HIDDEN}{secrets.token_hex(6)}"
            # Note the directory first, so that the next run finds it if this one is killed.
            with (self.path / ADOPTED).open("ab") as file:
                file.write(os.fsencode(path) + b"\0")
            self._adopted.append(path)
            path.mkdir(mode=0o700)
        except OSError as error:
            raise UsageError(
                f"the output directory {parent} cannot be used: {error.strerror}",
                hint="Name another with --output.",
            ) from error
        return path

    def remove(self) -> None:
        """Removes the directory and the directories that it has adopted."""
        with held_back():
            remove_directories(*self._adopted, self.path)


def remove_directories(*directories: Path) -> None:
    """Removes directories with their content as far as possible; ignores errors.

    Does it twice, because a disk may fail once.
    """
    for path in (*directories, *directories):
        # rmtree does not ignore an error of fstat(2) or close(2).
        with suppress(OSError):
            shutil.rmtree(path, ignore_errors=True)


def remove_unused(days: float, paths: Iterable[Path]) -> list[Path]:
    """Removes the files and directories that were not used for `days`; returns their paths.

    Other processes may remove them at the same time.
    """
    long_ago = time.time() - days * 86400
    removed = []
    for path in paths:
        with suppress(OSError):
            if path.lstat().st_mtime < long_ago:
                remove(path)
                removed.append(path)
    return removed


def remove(path: Path) -> None:
    """Removes a file or a directory if it is there. Raises OSError for a file that stays."""
    if path.is_dir() and not path.is_symlink():
        remove_directories(path)
    else:
        path.unlink(missing_ok=True)


def _remove_killed(work: Path) -> None:
    """Removes the workspace of a killed run, and the directories that it had adopted."""
    adopted = work / ADOPTED
    noted: list[bytes] = []
    with suppress(OSError):
        noted = read_regular(adopted, ADOPTED_BYTES, follow=False).split(b"\0")
    paths = [Path(os.fsdecode(name)) for name in noted]
    # Remove only directories that adopt_directory can have made.
    remove_directories(*(path for path in paths if path.name.startswith(HIDDEN)), work)


def _sweep(root: Path) -> None:
    for work in root.iterdir():
        if not work.is_dir():
            continue
        try:
            with _opened(work / LOCK, os.O_RDONLY) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_killed(work)
        except BlockingIOError:
            continue  # A running build holds it.
        except FileNotFoundError:
            _remove_killed(work)


def _claim(root: Path, held: ExitStack) -> Workspace:
    """Makes a workspace and locks it; `held` removes it, and then releases the lock."""
    with held_back():
        work = Workspace(Path(tempfile.mkdtemp(dir=root)))
        try:
            lock = held.enter_context(_opened(work.path / LOCK, os.O_WRONLY | os.O_CREAT))
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            held.callback(work.remove)
    return work


@contextmanager
def workspace() -> Iterator[Workspace]:
    """Makes a workspace, after removing the workspaces of killed runs."""
    cache = cache_directory()
    if not os.access(cache, os.W_OK | os.X_OK):
        raise InfrastructureError(f"the cache directory {cache} cannot be written to", hint=ADVICE)
    root = cache / "work"
    root.mkdir(exist_ok=True, mode=0o700)
    with ExitStack() as held:
        with locked(root / ".lock", Deadline.after(60, "clearing the work directory")):
            _sweep(root)
            work = _claim(root, held)
        yield work


def free_bytes(path: Path) -> int:
    """The bytes that an ordinary user can still write to the file system of `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def need_room(directory: Path, needed: int, what: str) -> None:
    """Raises NotEnoughSpace unless `directory` has room for `needed` bytes and a reserve."""
    free = free_bytes(directory)
    if free < needed + RESERVE_BYTES:
        raise NotEnoughSpace(
            f"not enough disk space in {directory}: {needed + RESERVE_BYTES} bytes are needed for "
            f"{what}, {free} are free",
            hint=f"Free {needed + RESERVE_BYTES - free} bytes more, or use another file system.",
        )


def allocated_bytes(path: Path) -> int:
    """The bytes that a (sparse) file takes on its disk."""
    return path.stat().st_blocks * 512


def failed_call(error: OSError) -> InfrastructureError:
    """The error, with its place and advice, for a failed system call of this process."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full_disk(error)
    places = [os.fsdecode(name) for name in (error.filename, error.filename2) if name]
    what = error.strerror or str(error)
    brief = f"{what}: {' -> '.join(places)}" if places else what
    return InfrastructureError(brief, hint=_ADVICE.get(error.errno or 0))


def _full_disk(error: OSError) -> NotEnoughSpace:
    place = Path(os.fsdecode(error.filename)) if error.filename else cache_directory()
    while not place.exists():
        place = place.parent
    return NotEnoughSpace(
        f"no space left in {place}; {free_bytes(place)} bytes are free there",
        hint=f"Free more space, or use another file system: {PLACES}",
    )

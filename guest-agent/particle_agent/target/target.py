"""The access of a stage to the system under construction: its commands, files and mounts."""

from __future__ import annotations

import collections
import io
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol

from particle_agent.contract import wire
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.record import Architecture
from particle_agent.contract.hosts import variables
from particle_agent.target import command, files, inside
from particle_agent.target.confinement import ADDITIONAL, Enclosure
from particle_agent.target.disks import wait_for_disk
from particle_agent.target.timings import Timings, name_of

COMMAND_SECONDS = 3600.0
# The copy that systemd-resolved's installation makes of an existing /etc/resolv.conf.
RESOLVED_BACKUP = "/etc/.resolv.conf.systemd-resolved.bak"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
}
# The directory of a stage's secrets in the target. Containers use the same path.
SECRETS = "/run/secrets"


class Reporter(Protocol):
    """The recipient of a stage's output, notes and requests. Its `packages` provides packages."""

    def output(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def disk_needed(self, size: int, content: int, disk: wire.OutputName = "output") -> None: ...

    def disk_written(self, size: int, disk: wire.OutputName = "output") -> None: ...

    def packages(self, request: wire.PackageRequest) -> wire.PackagesAnswer: ...


def _nothing_ahead(target: Target) -> None:
    """Does no work in advance."""


class Target:
    """The root file system under construction, in the directory `root` of the VM.

    Paths of the target are absolute strings from the target's own view. A symbolic link in them
    never leads out of `root`.

    - `architecture` is the architecture of the image.
    - `hostname` is the recipe's name, for stages that use it.
    - With `source_date` (seconds since 1970) the image is reproducible: no time in it is later, and
      commands get the date as SOURCE_DATE_EPOCH
      (https://reproducible-builds.org/specs/source-date-epoch/).
    - `command_seconds` is the default time limit of a command.
    - `attachments` is the VM's directory of files from the host.
    - `hosts` are the hosts that the stage may reach, through a proxy that variables name.
    - `apt_proxy` is the proxy for apt, if there is one. A stage with `hosts` does not reach it.
    - `ahead` does the work that later stages can do in advance.
    - With `plain`, stages take none of the shortcuts (docs/shortcuts.md).
    """

    def __init__(
        self,
        root: Path,
        reporter: Reporter,
        *,
        hostname: str,
        source_date: int | None = None,
        command_seconds: float = COMMAND_SECONDS,
        attachments: Path = Path(wire.ATTACHED),
        apt_proxy: wire.AptProxy | None = None,
        hosts: Sequence[str] = (),
        ahead: Callable[[Target], None] = _nothing_ahead,
        plain: bool = False,
        architecture: Architecture = AMD64,
    ) -> None:
        self.root: Final = root
        self.reporter: Final = reporter
        self.architecture: Final = architecture
        self.hostname: Final = hostname
        self.source_date: Final = source_date
        self.apt_proxy: Final = None if hosts else apt_proxy
        self.attachments: Final = attachments
        self._ahead = ahead
        self.plain: Final = plain
        self.timings = Timings()
        self._enclosure = Enclosure(root)
        # The last lines of the commands' output.
        self.tail: collections.deque[str] = collections.deque(maxlen=command.TAIL_LINES)
        self._command_seconds = command_seconds
        self._environment = dict(ENVIRONMENT) | (variables(hosts) if hosts else {})
        if source_date is not None:
            self._environment["SOURCE_DATE_EPOCH"] = str(source_date)

    def ahead(self) -> None:
        """Does the work that later stages can do now, while this stage finishes."""
        self._ahead(self)

    def at(self, root: Path) -> Target:
        """The system in another directory, for its files and for commands outside of it."""
        return Target(
            root,
            self.reporter,
            hostname=self.hostname,
            source_date=self.source_date,
            architecture=self.architecture,
        )

    # Commands

    def chroot(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Runs `argv` with the target as its root directory, confined (see `Enclosure`).

        Raises the errors of `run`.
        """
        self.run(["chroot", str(self.root), *argv], stdin=stdin, env=env, timeout=timeout)

    @contextmanager
    def capability(self, name: Literal["NET_ADMIN", "SYS_ADMIN"]) -> Iterator[None]:
        """Gives one more capability to the programs of the target (`confinement`).

        With SYS_ADMIN they can reach the whole VM, with NET_ADMIN their own network namespace.
        """
        usual, self._enclosure = self._enclosure, Enclosure(self.root, (ADDITIONAL[name],))
        try:
            yield
        finally:
            self._enclosure.close()
            self._enclosure = usual

    def chroot_from(self, argv: Sequence[str], data: Iterable[bytes]) -> None:
        """Runs `argv` as `chroot` does, and streams `data` to its standard input.

        The output is only used for errors.
        """
        argv = ["chroot", str(self.root), *argv]
        self.reporter.output(f"+ {' '.join(argv)}"[: command.LINE_CHARACTERS])
        with self.timings.part(name_of(argv[2:])):
            command.feed(
                argv,
                data,
                timeout=self._command_seconds,
                env=self._environment,
                start=self.start,
            )

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Runs `argv` in the helper VM, outside the target. `timeout` is in seconds.

        Raises CommandFailed on a non-zero status and EnvironmentFailed when the time is up.
        """
        self.reporter.output(f"+ {' '.join(argv)}"[: command.LINE_CHARACTERS])
        words = argv[2:] if argv[0] == "chroot" else argv
        with self.timings.part(name_of(words)):
            command.run(
                argv,
                emit=self._hear,
                timeout=self._command_seconds if timeout is None else timeout,
                stdin=stdin.encode(),
                env={**self._environment, **(env or {})},
                start=self.start,
            )

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Starts a command; `options` are those of Popen. Any program of the target is confined."""
        if list(argv[:2]) == ["chroot", str(self.root)]:
            return self._enclosure.start(argv[2:], **options)
        return command.start(argv, **options)

    def end_programs(self) -> None:
        """Ends all programs of the target, also those that have left their session or root."""
        self._enclosure.close()

    def _hear(self, line: str) -> None:
        self.timings.hear(line)
        self.tail.append(line)
        self.reporter.output(line)

    def capture(self, argv: Sequence[str], *, timeout: float = 60.0) -> str:
        """Returns the output of `argv` with the target as its root. Raises CommandFailed."""
        return self.capture_outside(["chroot", str(self.root), *argv], timeout=timeout)

    def capture_outside(self, argv: Sequence[str], *, timeout: float = 60.0) -> str:
        """Returns the output of `argv` in the helper VM. Raises CommandFailed."""
        return command.capture(argv, timeout=timeout, env=self._environment, start=self.start)

    # Files

    def path(self, path: str, *, follow: bool = True) -> Path:
        """The place in the VM of a path of the target. Links are resolved as the target would.

        With `follow` false the last component is not resolved. Raises StageError on a loop.
        """
        return inside.resolve(self.root, path, follow=follow)

    def exists(self, path: str) -> bool:
        return self.path(path).exists()

    def is_link(self, path: str) -> bool:
        return self.path(path, follow=False).is_symlink()

    def holds(self, place: Path) -> bool:
        """Whether a place in the VM lies on the target's own disk, and not in a mount of a build.

        Such mounts, as /proc, are no part of the image, and their files are those of the VM.
        """
        try:
            return place.lstat().st_dev == self.root.stat().st_dev
        except FileNotFoundError:
            return False

    def read(self, path: str) -> str:
        return self.read_bytes(path).decode("utf-8", "replace")

    def read_bytes(self, path: str) -> bytes:
        """The content of a regular file. Raises StageError for anything else."""
        return files.read_regular(self.path(path), path)

    def open(self, path: str) -> IO[bytes]:
        """Opens a regular file for reading. Raises StageError for anything else."""
        return files.open_regular(self.path(path), path)

    def is_file(self, path: str) -> bool:
        return self.path(path).is_file()

    def list(self, path: str) -> list[str]:
        """The sorted names in a directory. A missing directory has none."""
        place = self.path(path)
        return sorted(os.listdir(place)) if place.is_dir() else []

    def make_directory(
        self, path: str, *, mode: int = 0o755, owner: tuple[int, int] = (0, 0)
    ) -> None:
        """Makes the directory, and missing parents owned by root. Sets mode and owner."""
        place = self.path(path)
        with files.writing(path):
            place.mkdir(parents=True, exist_ok=True)
            self.chown(place, owner)
            place.chmod(mode)

    def write(
        self, path: str, text: str, *, mode: int = 0o644, owner: tuple[int, int] = (0, 0)
    ) -> None:
        """Writes a file atomically. It replaces a file or link of that name and follows no link."""
        self.write_from(io.BytesIO(text.encode()), path, mode=mode, owner=owner)

    def write_from(
        self, data: IO[bytes], path: str, *, mode: int = 0o644, owner: tuple[int, int] = (0, 0)
    ) -> None:
        """Writes a file as `write` does, with the content of the stream `data`."""
        place = self.path(path, follow=False)
        with files.writing(path):
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=".particle-os-")
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(data, file)
            temporary = Path(name)
            self.chown(temporary, owner)
            # chown(2) clears the set-user-ID and set-group-ID bits of a program.
            temporary.chmod(mode)
            temporary.replace(place)

    def attached(self, reference: str) -> Path:
        """The path in the VM of a file from the host; `reference` is an `options.HostFile`."""
        return self.attachments / reference.partition(":")[2]

    def symlink(self, path: str, to: str) -> None:
        """Makes `path` a symbolic link with the text `to`. It replaces a file or link."""
        self.remove(path)
        place = self.path(path, follow=False)
        with files.writing(path):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(to)

    def remove(self, path: str) -> None:
        """Removes a file, link or tree, if it exists."""
        place = self.path(path, follow=False)
        if place.is_symlink() or place.is_file():
            place.unlink()
        elif place.is_dir():
            shutil.rmtree(place)
        elif place.exists():
            place.unlink()

    def chown(self, place: Path, owner: tuple[int, int]) -> None:
        """Sets the user ID and group ID of a place in the VM, not following a link; -1 keeps it."""
        os.chown(place, *owner, follow_symlinks=False)

    # Shared surroundings of commands

    @contextmanager
    def secrets(self, values: Mapping[str, bytes]) -> Iterator[None]:
        """Writes secrets, by name, to files that only root can read. Removes them at the end.

        The files are in memory: /run of the target is a tmpfs.
        """
        if not values:
            yield
            return
        self.make_directory(SECRETS, mode=0o700)
        try:
            for name, value in values.items():
                self.write_from(io.BytesIO(value), f"{SECRETS}/{name}", mode=0o400)
            yield
        finally:
            self.remove(SECRETS)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Lets commands in the target resolve host names.

        At the end of the context /etc/resolv.conf is as before, unless a package has replaced it.
        """
        name, aside = "/etc/resolv.conf", "/etc/.particle-os-resolv.conf"
        ours = Path("/etc/resolv.conf").read_text(encoding="utf-8")
        existed = os.path.lexists(self.path(name, follow=False))
        if existed:
            self.path(name, follow=False).replace(self.path(aside, follow=False))
        self.write(name, ours)
        try:
            yield
        finally:
            # A package may have installed its own file or link, which stays.
            replaced = self.is_link(name) or not self.exists(name) or self.read(name) != ours
            if replaced:
                self.remove(aside)
                if self.exists(RESOLVED_BACKUP) and self.read(RESOLVED_BACKUP) == ours:
                    self.remove(RESOLVED_BACKUP)
            else:
                self.remove(name)
                if existed:
                    self.path(aside, follow=False).replace(self.path(name, follow=False))

    @contextmanager
    def mounted(self, what: str | Path, *options: str) -> Iterator[Path]:
        """Mounts `what` at a new directory of the VM. Yields the directory."""
        # A file system records its mount point, which reproducible images need to be the same.
        names = (Path(tempfile.gettempdir(), f"particle-os-mount-{n}") for n in itertools.count())
        where = next(name for name in names if not name.exists())
        where.mkdir(mode=0o700)
        subprocess.run(["mount", *options, str(what), str(where)], check=True, timeout=60)
        try:
            yield where
        finally:
            subprocess.run(["umount", str(where)], check=True, timeout=300)
            where.rmdir()

    @contextmanager
    def mounted_inside(self, what: Path, where: str, *options: str) -> Iterator[None]:
        """Mounts `what` at the directory `where` of the target, which it makes."""
        self.make_directory(where)
        place = str(self.path(where))
        subprocess.run(["mount", *options, str(what), place], check=True, timeout=60)
        try:
            yield
        finally:
            subprocess.run(["umount", place], check=True, timeout=300)

    # The output disk

    def output_disk(self, size: int, *, content: int, disk: wire.OutputName = "output") -> Path:
        """Asks the host for an output disk of `size` bytes. Returns its device.

        The stage will write about `content` bytes. The host checks that it has the space.
        """
        self.reporter.disk_needed(size, content, disk)
        return wait_for_disk(disk, size, 60.0)

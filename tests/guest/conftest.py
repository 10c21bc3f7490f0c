"""The `target` fixture: a Target that keeps files in a temporary directory and records commands."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from particle_agent.contract.wire import OutputName, PackageRequest, PackagesAnswer
from particle_agent.target.target import Target


@dataclass(frozen=True)
class Command:
    """A command that a stage ran. `inside` is true for a command that ran in the target."""

    argv: tuple[str, ...]
    stdin: str
    inside: bool
    env: Mapping[str, str] = field(default_factory=dict)


class Report:
    """A record of the messages from a stage to the host."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.needed: list[tuple[int, int]] = []
        self.written: list[int] = []
        # The disks of `written`, in their order.
        self.disks: list[OutputName] = []
        self.requests: list[PackageRequest] = []
        self.refusal: str | None = None

    def output(self, text: str) -> None:
        self.lines.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def disk_needed(self, size: int, content: int, disk: OutputName = "output") -> None:
        self.needed.append((size, content))

    def disk_written(self, size: int, disk: OutputName = "output") -> None:
        self.written.append(size)
        self.disks.append(disk)

    def packages(self, request: PackageRequest) -> PackagesAnswer:
        self.requests.append(request)
        return PackagesAnswer(refused=self.refusal)


class RecordingTarget(Target):
    """A Target with real files below a directory. It records commands, mounts and owners."""

    def __init__(self, directory: Path) -> None:
        root = directory / "root"
        root.mkdir()
        self.report = Report()
        super().__init__(root, self.report, hostname="testbox", attachments=directory)
        self.directory = directory
        self.commands: list[Command] = []
        # By inode: a file gets its owner before its name.
        self._owners: dict[int, tuple[int, int]] = {}
        self.networked = 0
        self.captured: dict[str, str] = {}
        self._reactions: dict[str, Callable[[Command], None]] = {}

    def when(self, program: str, reaction: Callable[[Command], None]) -> None:
        """Calls `reaction` when a stage runs `program`, to imitate its effect or its failure."""
        self._reactions[program] = reaction

    def programs(self) -> list[str]:
        return [command.argv[0] for command in self.commands]

    def only(self, program: str) -> Command:
        (found,) = [command for command in self.commands if command.argv[0] == program]
        return found

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        inside = list(argv[:2]) == ["chroot", str(self.root)]
        command = Command(tuple(argv[2:] if inside else argv), stdin, inside, env or {})
        self.commands.append(command)
        if reaction := self._reactions.get(command.argv[0]):
            reaction(command)

    def capture(self, argv: Sequence[str], *, timeout: float = 60.0) -> str:
        self.commands.append(Command(tuple(argv), "", True))
        return self.captured.get(argv[0], "")

    def capture_outside(self, argv: Sequence[str], *, timeout: float = 60.0) -> str:
        self.commands.append(Command(tuple(argv), "", False))
        return self.captured.get(argv[0], "")

    def chown(self, place: Path, owner: tuple[int, int]) -> None:
        self._owners[place.lstat().st_ino] = owner

    @contextmanager
    def network(self) -> Iterator[None]:
        self.networked += 1
        yield

    @contextmanager
    def mounted(self, what: str | Path, *options: str) -> Iterator[Path]:
        if "--bind" in options:
            yield Path(what)
            return
        where = self.directory / "mounted"
        where.mkdir(exist_ok=True)
        yield where

    @contextmanager
    def mounted_inside(self, what: Path, where: str, *options: str) -> Iterator[None]:
        self.make_directory(where)
        self.commands.append(Command(("mount", *options, str(what), where), "", True))
        yield

    def at(self, root: Path) -> RecordingTarget:
        """A target for another directory, with the same records."""
        other = copy.copy(self)
        vars(other)["root"] = root
        return other

    def output_disk(self, size: int, *, content: int, disk: OutputName = "output") -> Path:
        self.report.disk_needed(size, content, disk)
        place = self.directory / ("disk" if disk == "output" else disk)
        with place.open("wb") as file:
            file.truncate(size)
        return place

    def owner(self, path: str) -> tuple[int, int]:
        return self._owners[self.path(path).lstat().st_ino]

    @property
    def owners(self) -> dict[str, tuple[int, int]]:
        """The owners that were set, by the last part of the path."""
        there = {path.name: path.lstat().st_ino for path in self.root.rglob("*")}
        return {name: self._owners[inode] for name, inode in there.items() if inode in self._owners}

    def forget_owners(self) -> None:
        self._owners.clear()

    def mode(self, path: str) -> int:
        return self.path(path).stat().st_mode & 0o7777


@pytest.fixture(scope="session")
def make_target(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], RecordingTarget]:
    return lambda: RecordingTarget(tmp_path_factory.mktemp("target"))


@pytest.fixture
def target(make_target: Callable[[], RecordingTarget]) -> RecordingTarget:
    return make_target()

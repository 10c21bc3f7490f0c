"""The places for verdicts: the terminal, files, and annotations of a GitHub workflow."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from particle_os.boot.observation.verdict import Verdict
from particle_os.cli.command import OutputStyle
from particle_os.cli.options import PathType
from particle_os.errors import ParticleError, UsageError
from particle_os.report import verdict
from particle_os.report.ci import github, junit, markdown
from particle_os.system import publication
from particle_os.system.workspace import failed_call

STREAMS = (Path("/dev/stdout"), Path("/dev/stderr"))
DESCRIPTORS = (Path("/dev/fd"), Path("/proc/self/fd"))
_WRITE = "Also write the result of the boot test, or the error before it, to FILE as {}."
_OPTIONS = (
    click.option("--junit", type=PathType(dir_okay=False), metavar="FILE",
                 help=_WRITE.format("JUnit XML")),
    click.option("--summary", type=PathType(dir_okay=False), metavar="FILE",
                 help=_WRITE.format("Markdown")),
)  # fmt: skip


@dataclass(frozen=True)
class ResultFiles:
    """The files that the user wants the result in: as JUnit XML, and as Markdown."""

    junit: Path | None = None
    summary: Path | None = None

    def check_writable(self, others: Iterable[Path] = ()) -> None:
        """Raises UsageError unless each can be written at the end of the command.

        The `others` are files that the command reads or writes for another purpose.
        """
        taken = list(others)
        for file in self.wanted:
            check_writable(file, taken)
            taken.append(file)

    @property
    def wanted(self) -> list[Path]:
        """The files that are wanted."""
        return [file for file in (self.junit, self.summary) if file is not None]

    def hand_over(self, image: str, verdicts: Sequence[Verdict]) -> None:
        """Writes the verdicts. Raises InfrastructureError."""
        _write(self.junit, junit.document(image, verdicts))
        _write(self.summary, markdown.document(image, verdicts).encode())

    def write(self, as_junit: bytes, as_markdown: str) -> None:
        """Writes finished texts. Raises InfrastructureError."""
        _write(self.junit, as_junit)
        _write(self.summary, as_markdown.encode())

    def hand_over_failure(self, image: str, error: ParticleError) -> None:
        """Writes the error of a build that failed before its boot test.

        If that fails, too, the error says so: the user must learn of both.
        """
        try:
            _write(self.junit, junit.failed_build(image, error))
            _write(self.summary, markdown.failed_build(image, error).encode())
        except ParticleError as unwritten:
            error.tail = (*error.tail, unwritten.brief)


def with_files(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for the files, and gathers them into `files`."""

    @functools.wraps(function)
    def command(junit: Path | None, summary: Path | None, **arguments: Any) -> Any:
        return function(files=ResultFiles(junit, summary), **arguments)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_writable(file: Path | None, others: Iterable[Path] = ()) -> None:
    """Raises UsageError unless `file` can be written at the end of the command.

    The `others` are files that the command reads or writes for another purpose; `file` must not be
    one of them.
    """
    if file is None or _is_stream(file):
        return
    # Try to write: permissions prove nothing to root, nor in /proc, where no file can be made.
    try:
        if any(_is_same(file, other) for other in others):
            raise UsageError(f"{file} cannot be written: this command needs it for something else")
        publication.check_replaceable(file)
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise _unwritable(file, error) from error


def _is_stream(path: Path) -> bool:
    """Whether a path names an open file of this process, as `>(...)` of a shell does."""
    return path in STREAMS or path.parent in DESCRIPTORS


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths name the same file, which need not exist yet."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)


def make_writable(directory: Path | None) -> None:
    """Makes a directory. Raises UsageError when no file can be made in it."""
    if directory is None:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise _unwritable(directory, error) from error


def _unwritable(path: Path, error: OSError) -> UsageError:
    there = path.exists() or path.absolute().parent.exists()
    why = error.strerror if there else "there is no such directory"
    return UsageError(f"{path} cannot be written: {why}")


def show(output: OutputStyle, verdicts: Sequence[Verdict]) -> None:
    """Prints the verdicts on standard output."""
    output.show(verdict.data(verdicts), verdict.lines(verdicts))


def hand_over(
    output: OutputStyle,
    image: str,
    verdicts: Sequence[Verdict],
    files: ResultFiles,
    report_file: Path | None = None,
    report: str = "",
) -> None:
    """Annotates the GitHub workflow, if there is one, and writes the files that are not None.

    Raises InfrastructureError when a file cannot be written.
    """
    output.workflow.command(github.workflow_commands(image, verdicts))
    files.hand_over(image, verdicts)
    _write(report_file, report.encode())


def hand_over_failure(
    output: OutputStyle, name: str, error: ParticleError, files: ResultFiles
) -> None:
    """Annotates the GitHub workflow, and writes the files: the build has no verdict.

    The error first loses its secrets.
    """
    output.gate.clean(error)
    output.workflow.command([github.failed_build(name, error)])
    files.hand_over_failure(name, error)


def _write(path: Path | None, data: bytes) -> None:
    if path is None:
        return
    try:
        if _is_stream(path):
            with path.open("ab") as stream:
                stream.write(data)
        else:
            publication.replace(path, data)
    except OSError as error:
        raise failed_call(OSError(error.errno, error.strerror, str(path.absolute()))) from error

"""The places for verdicts: the terminal, files, and annotations of a GitHub workflow."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from particle_os.boot.observation.verdict import Verdict
from particle_os.cli.command import OutputStyle
from particle_os.cli.options import PathType
from particle_os.errors import ParticleError, UsageError
from particle_os.report import github, junit, verdict
from particle_os.system import publication
from particle_os.system.workspace import failed_call

STREAMS = (Path("/dev/stdout"), Path("/dev/stderr"))
DESCRIPTORS = (Path("/dev/fd"), Path("/proc/self/fd"))
JUNIT = click.option(
    "--junit",
    "junit_file",
    type=PathType(dir_okay=False),
    metavar="FILE",
    help="Also write the result of the boot test, or the error before it, to FILE as JUnit XML.",
)


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
    junit_file: Path | None,
    report_file: Path | None = None,
    report: str = "",
) -> None:
    """Annotates the GitHub workflow, if there is one, and writes the files that are not None.

    Raises InfrastructureError when a file cannot be written.
    """
    output.workflow.command(github.workflow_commands(image, verdicts))
    _write(junit_file, junit.document(image, verdicts))
    _write(report_file, report.encode())


def hand_over_failure(image: str, error: ParticleError, junit_file: Path | None) -> None:
    """Writes the JUnit file of a build that failed before its boot test.

    If it cannot be written, the error says so: the user must learn of both.
    """
    try:
        _write(junit_file, junit.failed_build(image, error))
    except ParticleError as unwritten:
        error.tail = (*error.tail, unwritten.brief)


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

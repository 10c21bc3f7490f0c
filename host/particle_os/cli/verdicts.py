"""Where verdicts go besides the terminal: files, annotations of a GitHub workflow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from particle_os.boot import github, junit
from particle_os.boot.verdict import Verdict
from particle_os.cli.common import PathType
from particle_os.errors import UsageError

JUNIT = click.option(
    "--junit",
    "junit_file",
    type=PathType(dir_okay=False),
    metavar="FILE",
    help="Also write what the boot test found to FILE, as JUnit XML.",
)


def check_writable(file: Path | None) -> None:
    """Raises UsageError, before anything starts, when a file could not be written at the end."""
    if file is None:
        return
    place = file if file.exists() else file.absolute().parent
    if not os.access(place, os.W_OK):
        why = "" if place.exists() else ": there is no such directory"
        raise UsageError(f"{file} cannot be written{why}")


def hand_over(
    image: str,
    verdicts: Sequence[Verdict],
    junit_file: Path | None,
    report_file: Path | None = None,
    report: str = "",
) -> None:
    """Tells a GitHub workflow, if this is one, and writes the files that are wanted.

    Raises UsageError when one cannot be written.
    """
    if github.reads_us(os.environ):
        for line in github.workflow_commands(image, verdicts):
            # The runner reads both outputs; standard output may be data.
            click.echo(line, err=True)
    xml = junit.document(image, verdicts)
    for path, data in ((junit_file, xml), (report_file, report.encode())):
        if path is None:
            continue
        try:
            path.write_bytes(data)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error

"""The commands of `ostree`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click

from particle_os.cli.command import OutputStyle, say, with_output
from particle_os.cli.options import PathType
from particle_os.cli.usage.commands import CommandGroup
from particle_os.errors import Interrupted, UsageError, printable
from particle_os.ostree import history, objects
from particle_os.ostree.files import opened
from particle_os.ostree.objects import Commit
from particle_os.ostree.server import RepositoryServer

REPOSITORY = click.argument("repository", type=PathType(exists=True))
LINES = 1000


@click.group("ostree", cls=CommandGroup)
def ostree_group() -> None:
    """Serve a repository of OSTree for trying, and show its commits."""


@ostree_group.command("serve")
@REPOSITORY
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="The port of 127.0.0.1; 0 takes a free one.")  # fmt: skip
@with_output
def ostree_serve_command(output: OutputStyle, repository: Path, port: int) -> None:
    """Serve REPOSITORY (NAME.ostree.tar or a directory) to this machine, until Ctrl-C.

    Other machines cannot reach the server. An archive is not unpacked.
    """
    with opened(repository) as files:
        try:
            server = RepositoryServer(files, port)
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be used: {error.strerror}", hint="Try '--port 0'."
            ) from error
        with server:
            output.show({"url": server.url}, [f"{server.url} (Ctrl-C ends it)"])
            try:
                server.serve_forever(poll_interval=0.2)
            except Interrupted:
                if not (output.quiet or output.as_json):
                    say("ended", error=True)


@ostree_group.command("log")
@REPOSITORY
@click.argument("ref", required=False)
@with_output
def ostree_log_command(output: OutputStyle, repository: Path, ref: str | None) -> None:
    """Show the commits of REF in REPOSITORY, the newest first.

    REF is a ref or a checksum; a repository with one ref needs none.
    """
    with opened(repository) as files:
        found = list(history.log(files, history.resolve(files, ref)))
    output.show([_document(commit) for commit in found], _log(found))


def _document(commit: Commit) -> dict[str, Any]:
    return {
        "checksum": commit.checksum, "parent": commit.parent, "version": commit.version,
        "subject": commit.subject, "date": commit.date, "metadata": dict(commit.texts),
    }  # fmt: skip


def _log(commits: Sequence[Commit]) -> Iterator[str]:
    for commit in commits:
        yield f"commit {commit.checksum}"
        yield f"  date     {_date(commit.date)}"
        if commit.version:
            yield printable(f"  version  {commit.version}")
        if commit.subject:
            yield printable(f"  subject  {commit.subject}")


def _date(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"{seconds} s since 1970"


@ostree_group.command("diff")
@REPOSITORY
@click.argument("before", required=False)
@click.argument("after", required=False)
@with_output
def ostree_diff_command(
    output: OutputStyle, repository: Path, before: str | None, after: str | None
) -> None:
    """Show the packages and files that differ in two commits of REPOSITORY.

    BEFORE and AFTER are refs or checksums: by default the parent of AFTER, and the only ref. The
    output names the first 1000 files.
    """
    with opened(repository) as files:
        new = objects.commit(files, history.resolve(files, after))
        if before is None and new.parent is None:
            raise UsageError(
                f"the commit {new.checksum} has no parent", hint="Name another commit as BEFORE."
            )
        old = objects.commit(files, history.resolve(files, before or new.parent))
        versions = history.packages(files, old), history.packages(files, new)
        found = history.differences(files, old, new)
        paths = [f"{change.kind} {change.path}" for change in islice(found, LINES)]
        more = sum(1 for _ in found)
    changed = list(_packages(*versions))
    data = {"before": old.checksum, "after": new.checksum, "packages": changed, "files": paths}
    lines = [f"{p['name']} {p['before'] or 'new'} → {p['after'] or 'removed'}" for p in changed]
    lines += [*paths, *([f"and {more} more"] if more else [])]
    output.show({**data, "files_left_out": more}, map(printable, lines))


def _packages(old: dict[str, str], new: dict[str, str]) -> Iterator[dict[str, str | None]]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield {"name": name, "before": old.get(name), "after": new.get(name)}

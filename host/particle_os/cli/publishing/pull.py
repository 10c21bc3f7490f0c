"""The command `pull`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, command, with_output
from particle_os.publishing.pull import pull
from particle_os.publishing.pulled_set import PulledSet
from particle_os.registry.reference import parse_reference
from particle_os.report.table import human_bytes
from particle_os.system.workspace import workspace


@command("pull")
@click.argument("reference", metavar="docker://HOST/REPOSITORY[:TAG|@DIGEST]")
@click.option("--name", metavar="NAME", help="Name the files so; by default as the repository.")
@click.option("--force", is_flag=True, help="Replace files of this name that are from elsewhere.")
@option.OUTPUT
@with_output
def pull_command(
    output: OutputStyle, reference: str, output_directory: Path, name: str | None, force: bool
) -> None:
    """Bring an image back from a registry, with the result and the report of its build.

    It takes what 'push' has made, and KubeVirt's containerdisks. The disk has to be the one that
    the result names.
    """
    source = parse_reference(reference)
    place = PulledSet.of(source, name, output_directory)
    with output.progress_shown() as progress, workspace() as work:
        pulled = pull(source, place, progress, work, force=force)
    status = pulled.status or "without a result"
    lines = [f"{pulled.path} ({human_bytes(pulled.bytes)}), {status}"]
    lines += [str(path) for path in (pulled.result, pulled.report) if path]
    lines.append(f"from {pulled.reference}")
    data = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(pulled).items()}
    output.show(data, lines)

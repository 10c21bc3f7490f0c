"""The command `export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, command, with_output
from particle_os.cli.options import ImageType
from particle_os.publishing.export import export
from particle_os.publishing.platforms import PLATFORMS
from particle_os.report.table import human_bytes
from particle_os.system.workspace import workspace
from particle_os.vm.image_format import image_format


@command("export")
@click.argument("image", type=ImageType())
@click.option("--for", "platform", type=click.Choice(list(PLATFORMS)), required=True,
              help="The cloud or hypervisor that imports the file.")  # fmt: skip
@option.FORMAT
@option.OUTPUT
@with_output
def export_command(
    output: OutputStyle,
    image: Path,
    platform: str,
    given_format: str | None,
    output_directory: Path,
) -> None:
    """Make the file that a cloud or a hypervisor imports, and show the command that imports it.

    The image is not changed, and nothing is sent. The disk grows where the platform asks for it.
    """
    driver = image_format(image, given_format)
    with output.progress_shown() as progress, workspace() as work:
        made = export(image, driver, PLATFORMS[platform], output_directory, progress, work)
    size = human_bytes(made.bytes)
    lines = [f"{made.path} ({size})", f"import it with: {made.command}"]
    output.show({**asdict(made), "path": str(made.path)}, lines)

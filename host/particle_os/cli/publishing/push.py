"""The command `push`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from particle_os.architecture import ARCHITECTURES
from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, command, with_output
from particle_os.errors import UsageError
from particle_os.publishing import containerdisk, published_image
from particle_os.publishing.published_image import ARTIFACT_FORMATS, PublishedImage
from particle_os.publishing.push import WAYS, Pushed, Way, push
from particle_os.registry.reference import parse_reference
from particle_os.report.table import human_bytes
from particle_os.system.workspace import workspace


@command("push")
@click.argument("name", metavar="NAME|IMAGE")
@click.argument("target", metavar="docker://HOST/REPOSITORY[:TAG]")
@click.option("--as", "way", type=click.Choice(WAYS), default=WAYS[0], show_default=True,
              help="A containerdisk for KubeVirt, the disk as an artifact, or both under one tag.",
              )  # fmt: skip
@click.option("--untested", is_flag=True,
              help="Push also an image that has not passed its boot test.")  # fmt: skip
@click.option("--architecture", type=click.Choice(list(ARCHITECTURES)),
              help="The architecture of an image that has no result of a build.")  # fmt: skip
@option.FORMAT
@option.OUTPUT
@with_output
def push_command(
    output: OutputStyle,
    name: str,
    target: str,
    way: Way,
    untested: bool,
    architecture: str | None,
    given_format: str | None,
    output_directory: Path,
) -> None:
    """Push the image of a build to a registry, with its result and its report.

    NAME is the name of a recipe that was built into --output. An image needs the result of its
    build beside it. The credentials are those of 'skopeo login'.
    """
    place = parse_reference(target)
    if place.tag is None:
        raise UsageError(f"{target} names a digest, and only a tag can be written")
    wanted = ARTIFACT_FORMATS if way == "artifact" else containerdisk.FORMATS
    path = published_image.find_image(name, output_directory, wanted)
    with output.progress_shown() as progress, workspace() as work:
        with progress.phase("checksum"):
            image = published_image.examine(path, given_format)
        if not untested:
            published_image.check_tested(image)
        named = published_image.architecture_of(image, given_format, architecture, work)
        pushed = push(image, place, way, named, progress, work)
    output.show({**asdict(pushed), "image": str(path)}, _lines(image, pushed))


def _lines(image: PublishedImage, pushed: Pushed) -> list[str]:
    reference, digest = pushed.reference.rpartition(":")[0], pushed.digest
    lines = [
        f"{image.path} is {pushed.reference} ({human_bytes(pushed.sent)} sent)",
        f"pull it with: particle-os pull {reference}@{digest}",
    ]
    if "containerdisk" in pushed.forms:
        name = reference.removeprefix("docker://")
        lines.append(f"KubeVirt: containerDisk: {{image: {name}@{digest}}}")
    return lines

"""The options of the commands that make a plan, each declared once, and the value they become."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from particle_os.cli.common import PathType, size
from particle_os.jobs.plan import MAX_AGE_SECONDS, BuildOptions


def build_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gathers the parameters that are named as fields of BuildOptions into `options`.

    A field without a parameter keeps its default.
    """
    names = [field.name for field in fields(BuildOptions)]

    @functools.wraps(function)
    def command(**arguments: Any) -> Any:
        given = {name: arguments.pop(name) for name in names if name in arguments}
        return function(options=BuildOptions(**given), **arguments)

    return command


def _negated(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    return not value


def _seconds(context: click.Context, parameter: click.Parameter, hours: int) -> int:
    return hours * 3600


OUTPUT = click.option(
    "--output", "output_directory", type=PathType(file_okay=False), default=Path("out"),
    show_default=True, help="Where the images go.",
)  # fmt: skip
BASE = click.option(
    "--base", metavar="REF", help="Start from this base image instead of the recipe's."
)
SAME_BASE = click.option("--base", metavar="REF", help="As it was given to build.")
CPUS = click.option("--cpus", type=click.IntRange(1, 64), help="The helper VM's processors.")
# Checkpoints differ in the scratch disk's size, and in the source date: `shell` takes both, too.
SCRATCH_SIZE = click.option(
    "--scratch-size", "scratch", callback=size, metavar="SIZE", default="32G", show_default=True,
    help="The most that the system under construction may take.",
)  # fmt: skip
SOURCE_DATE = click.option(
    "--source-date", type=click.IntRange(0, 2**32 - 1), metavar="SECONDS",
    envvar="SOURCE_DATE_EPOCH", show_envvar=True,
    help="Make the image reproducible; no time in it is later (seconds since 1970).",
)  # fmt: skip
PLAIN = click.option(
    "--plain", is_flag=True, envvar="PARTICLE_OS_PLAIN", show_envvar=True,
    help="Take no shortcuts; the image is the same, and takes longer (docs/shortcuts.md).",
)  # fmt: skip
MIRROR = click.option(
    "--mirror", metavar="URL", envvar="PARTICLE_OS_MIRROR", show_envvar=True,
    help="The Debian mirror for the helper VM and for mmdebstrap: bases, which then have "
    "no other source: no updates and no security suites.",
)  # fmt: skip
SAME_MIRROR = click.option(
    "--mirror", metavar="URL", envvar="PARTICLE_OS_MIRROR", help="As given to build."
)
TEMPLATE = click.option(
    "--template", default="debian-trixie", show_default=True, help="The helper VM."
)
HIDDEN_TEMPLATE = click.option("--template", default="debian-trixie", hidden=True)
NO_CACHE = click.option(
    "--no-cache", "cache", is_flag=True, callback=_negated,
    help="Do everything anew, and keep nothing of it.",
)  # fmt: skip
REFRESH = click.option(
    "--refresh", metavar="STAGE",
    help="Do this stage (number, name or type; base) and all after it anew.",
)  # fmt: skip
MAX_AGE = click.option(
    "--max-age", type=click.IntRange(0), default=int(MAX_AGE_SECONDS // 3600), show_default=True,
    callback=_seconds, metavar="HOURS",
    help="How long a stage that reads the network need not be done anew.",
)  # fmt: skip
NO_BOOT_TEST = click.option(
    "--no-boot-test", "boot_test", is_flag=True, callback=_negated,
    help="Publish without having booted the image.",
)  # fmt: skip
KEEP_ON_FAILURE = click.option(
    "--keep-on-failure", is_flag=True, help="Keep the disks of a failed build."
)

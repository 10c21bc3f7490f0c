"""The command `boot-test`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from particle_os.boot.evidence import CONSOLE
from particle_os.boot.verdict import Verdict
from particle_os.cli.common import (
    ACCEL,
    FORMAT,
    OutputStyle,
    PathType,
    common,
    find_acceleration,
    memory_option,
)
from particle_os.cli.outcome import not_booted
from particle_os.cli.verdicts import JUNIT, check_writable, hand_over, make_writable
from particle_os.errors import UsageError
from particle_os.jobs import boot_test
from particle_os.recipe import loading, model
from particle_os.recipe.checks.kinds import Check
from particle_os.recipe.checks.system import UnitCheck, is_unit_name
from particle_os.vm import accel
from particle_os.vm import firmware as firmwares
from particle_os.vm.firmware import FIRMWARES, Firmware
from particle_os.vm.image_format import image_format

DEFAULT: tuple[Firmware, ...] = ("bios",)


def _units(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> Any:
    for unit in value:
        if not is_unit_name(unit):
            raise click.BadParameter(f"'{unit}' is no systemd unit such as 'ssh.service'")
    return value


@click.command("boot-test")
@click.argument("image", type=PathType(exists=True, dir_okay=False))
@FORMAT
@click.option(
    "--unit", "units", multiple=True, callback=_units, help="A systemd unit that must be active."
)
@click.option("--firmware", type=click.Choice(FIRMWARES),
              help="What starts the machine: bios (default), uefi or uefi-secure.")  # fmt: skip
@click.option("--checks", "checks_file", type=PathType(), metavar="FILE",
              help="A file with what stands under 'boot-test' in a recipe.")  # fmt: skip
@click.option("--console-only", is_flag=True,
              help="Do not ask the system: a login prompt is enough, and weak.")  # fmt: skip
@ACCEL
@memory_option("1G")
@click.option(
    "--timeout", type=click.IntRange(1, 86400), metavar="SECONDS", help="How long to wait."
)
@JUNIT
@click.option("--report", "report_file", type=PathType(dir_okay=False), metavar="FILE",
              help="Also write a page for people to FILE, as HTML.")  # fmt: skip
@click.option("--evidence", "evidence_directory", type=PathType(file_okay=False),
              metavar="DIRECTORY", help="Keep console, screen and journal there.")  # fmt: skip
@click.option("--template", default="debian-trixie", show_default=True, hidden=True)
@common
def boot_test_command(
    output: OutputStyle, image: Path, given_format: str | None,
    units: tuple[str, ...], firmware: Firmware | None, checks_file: Path | None, accel: accel.Mode,
    memory: int | None, timeout: int | None, junit_file: Path | None, report_file: Path | None,
    evidence_directory: Path | None, console_only: bool, template: str,
) -> None:  # fmt: skip
    """Boot IMAGE through a throwaway overlay and tell whether it came up."""
    read = [image, checks_file] if checks_file else [image]
    check_writable(junit_file, read)
    check_writable(report_file, [*read, junit_file] if junit_file else read)
    found = image_format(image, given_format)
    make_writable(evidence_directory)
    wanted = loading.load_boot_test(checks_file) if checks_file is not None else model.BootTest()
    checks: list[Check] = [*map(_active, units), *wanted.checks]
    if console_only and checks:
        raise UsageError("--console-only does not ask the system, so that no check can be made")
    names = (firmware,) if firmware else wanted.firmware or DEFAULT
    for name in names:
        firmwares.check(name)
    test = boot_test.BootTestJob(
        image, found, names, checks, memory, timeout, console_only, evidence_directory
    )
    with output.progress_shown() as progress:
        report = boot_test.run(test, partial(find_acceleration, accel, template), progress)
    if output.as_json or report.failure is None:
        _tell(output, report.verdicts)
    hand_over(image.name, report.verdicts, junit_file, report_file, report.page)
    if report.failure is not None:
        raise report.failure
    for verdict in report.verdicts:
        if not verdict.accepted:
            kept = evidence_directory and evidence_directory / verdict.firmware / CONSOLE
            raise not_booted(verdict, kept)


def _active(unit: str) -> Check:
    return UnitCheck(unit=unit)


def _tell(output: OutputStyle, verdicts: Sequence[Verdict]) -> None:
    """One verdict is told as an object, those of several firmwares as an array."""
    if output.as_json:
        data = [verdict.model_dump(mode="json") for verdict in verdicts]
        click.echo(json.dumps(data[0] if len(data) == 1 else data, indent=2))
        return
    for verdict in verdicts:
        for line in summary(verdict):
            click.echo(line)


def summary(verdict: Verdict) -> list[str]:
    """A line a check, and one for the verdict."""
    checks = [
        f"{'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail[:200]}"
        for check in verdict.checks
    ]
    how = f"{verdict.status} in {verdict.seconds:.1f} s under {verdict.firmware}"
    return [*checks, f"{how}: {verdict.message}"]

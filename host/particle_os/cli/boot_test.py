"""The command `boot-test`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from particle_os import boot_test, page, recipe
from particle_os.boot import junit
from particle_os.boot.evidence import Evidence
from particle_os.boot.verdict import Verdict
from particle_os.checks import Check, UnitCheck
from particle_os.cli.common import ACCEL, MEMORY, Output, PathType, common, find_acceleration
from particle_os.errors import InfrastructureError, UsageError, printable
from particle_os.outcome import not_booted
from particle_os.vm import accel
from particle_os.vm.firmware import FIRMWARES, Firmware
from particle_os.workspace import workspace


def _units(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> Any:
    for unit in value:
        if not recipe.is_unit_name(unit):
            raise click.BadParameter(f"'{unit}' is no systemd unit such as 'ssh.service'")
    return value


@click.command("boot-test")
@click.argument("image", type=PathType(exists=True, dir_okay=False))
@click.option("--format", "image_format", type=click.Choice(["raw", "qcow2"]),
              help="The image's format; found out by itself otherwise.")  # fmt: skip
@click.option(
    "--unit", "units", multiple=True, callback=_units, help="A systemd unit that must be active."
)
@click.option("--firmware", type=click.Choice(FIRMWARES), default="bios", show_default=True,
              help="What starts the machine; uefi-secure is UEFI with Secure Boot.")  # fmt: skip
@click.option("--checks", "checks_file", type=PathType(), metavar="FILE",
              help="A file with what stands under 'boot-test' in a recipe.")  # fmt: skip
@ACCEL
@MEMORY
@click.option(
    "--timeout", type=click.IntRange(1, 86400), metavar="SECONDS", help="How long to wait."
)
@click.option("--junit", "junit_file", type=PathType(dir_okay=False), metavar="FILE",
              help="Also write the verdict to FILE, as JUnit XML.")  # fmt: skip
@click.option("--report", "report_file", type=PathType(dir_okay=False), metavar="FILE",
              help="Write a page for people (HTML).")  # fmt: skip
@click.option("--evidence", "evidence_directory", type=PathType(file_okay=False),
              metavar="DIRECTORY", help="Keep console and screen.")  # fmt: skip
@click.option("--template", default="debian-trixie", show_default=True, hidden=True)
@common
def boot_test_command(
    output: Output, image: Path, image_format: Literal["raw", "qcow2"] | None,
    units: tuple[str, ...], firmware: Firmware, checks_file: Path | None, accel: accel.Wish,
    memory: int | None, timeout: int | None, junit_file: Path | None, report_file: Path | None,
    evidence_directory: Path | None, template: str,
) -> int:  # fmt: skip
    """Boot IMAGE through a throwaway overlay and tell whether it came up."""
    found = boot_test.image_format(image)
    checks: list[Check] = [UnitCheck(unit=unit) for unit in units]
    if checks_file is not None:
        checks += recipe.load_boot_test(checks_file).checks
    progress = output.progress_sinks()
    try:
        with workspace() as work:
            acceleration = find_acceleration(accel, template, work, progress)
            evidence = evidence_directory or work.path / "evidence"
            with progress.phase("boot test"):
                verdict = boot_test.boot(
                    image,
                    acceleration,
                    format=image_format or found,
                    firmware=firmware,
                    directory=work.path / "boot-test",
                    evidence=Evidence(evidence / firmware, image.resolve()),
                    checks=checks,
                    memory=memory,
                    timeout=timeout,
                    on_phase=progress.boot_phase,
                )
            report = page.document(image.name, [verdict], evidence=evidence)
    except InfrastructureError as error:
        # Nothing is known of the image; a report says so, too.
        verdict = Verdict(
            status="infrastructure", firmware=firmware, seconds=0, message=printable(error.brief)
        )
        progress.close()
        report = page.document(image.name, [verdict], evidence=evidence_directory)
        _write(image, verdict, junit_file, report_file, report)
        _tell(output, verdict)
        raise
    finally:
        progress.close()
    _write(image, verdict, junit_file, report_file, report)
    _tell(output, verdict)
    if not verdict.passed:
        raise not_booted(verdict, None)
    return 0


def _write(
    image: Path, verdict: Verdict, junit_file: Path | None, report_file: Path | None, report: str
) -> None:
    """Writes the files that the user wants."""
    xml = junit.document(image.name, [verdict])
    for path, data in ((junit_file, xml), (report_file, report.encode())):
        if path is None:
            continue
        try:
            path.write_bytes(data)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _tell(output: Output, verdict: Verdict) -> None:
    if output.as_json:
        click.echo(verdict.model_dump_json(indent=2))
        return
    for check in verdict.checks:
        sign = "ok    " if check.passed else "FAILED"
        click.echo(f"{sign} {check.name}: {check.detail[:200]}")
    click.echo(f"{verdict.status} in {verdict.seconds:.1f} s: {printable(verdict.message)}")

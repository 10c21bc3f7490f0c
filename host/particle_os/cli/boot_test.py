"""The command `boot-test`."""

from __future__ import annotations

from pathlib import Path

import click

from particle_os.boot import machine_choice
from particle_os.boot.machines.variants import variants
from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, command, with_output
from particle_os.cli.verdicts import (
    ResultFiles,
    check_writable,
    hand_over,
    make_writable,
    show,
    with_files,
)
from particle_os.errors import UsageError
from particle_os.jobs.boot_tests import boot_test
from particle_os.recipe import loading
from particle_os.recipe.checks.system import UnitCheck, is_unit_name
from particle_os.sandbox.acceleration import find_acceleration
from particle_os.vm import accel
from particle_os.vm.image_format import image_format


def _unit_checks(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[UnitCheck, ...]:
    for unit in value:
        if not is_unit_name(unit):
            raise click.BadParameter(f"'{unit}' is no systemd unit such as 'ssh.service'")
    return tuple(UnitCheck(unit=unit) for unit in value)


@command("boot-test")
@click.argument("image", type=option.ImageType())
@option.FORMAT
@click.option(
    "--unit", "units", multiple=True, callback=_unit_checks,
    help="A systemd unit that must be active; may be given several times.",
)  # fmt: skip
@option.IMAGE_ARCHITECTURE
@option.FIRMWARE
@click.option("--checks", "checks_file", type=option.PathType(), metavar="FILE",
              help="A YAML file with the keys of 'boot-test' in a recipe.")  # fmt: skip
@option.TESTINFRA
@click.option("--console-only", is_flag=True,
              help="Wait for a login prompt only, without asking the system: weak.")  # fmt: skip
@option.ACCEL
@option.DISKS
@option.NETWORK_CARDS
@click.option("--tpm", is_flag=True, help="Add a TPM 2.0, which needs swtpm.")
@option.MEMORIES
@click.option("--cpus", "processors", type=click.IntRange(1, 64), multiple=True,
              help="The number of processors; repeatable.  [default: 2 or 1]")  # fmt: skip
@click.option(
    "--timeout", type=click.IntRange(1, 86400), metavar="SECONDS", help="How long to wait."
)
@with_files
@click.option("--report", "report_file", type=option.PathType(dir_okay=False), metavar="FILE",
              help="Also write a report for people to FILE, as HTML.")  # fmt: skip
@click.option("--evidence", "evidence_directory", type=option.PathType(file_okay=False),
              metavar="DIRECTORY",
              help="Keep the console, the screen and the journal in DIRECTORY.")  # fmt: skip
@option.HIDDEN_TEMPLATE
@with_output
def boot_test_command(
    output: OutputStyle, image: Path, given_format: str | None,
    units: tuple[UnitCheck, ...], wanted_architecture: option.Architecture | None,
    firmware: option.Firmware | None, checks_file: Path | None,
    accel: accel.Mode, disk: tuple[str, ...], network_card: tuple[str, ...], tpm: bool,
    memory: tuple[str, ...], processors: tuple[int, ...], timeout: int | None,
    files: ResultFiles, report_file: Path | None, evidence_directory: Path | None,
    console_only: bool, template: str | None, testinfra: Path | None,
) -> None:  # fmt: skip
    """Boot IMAGE through a temporary overlay and report whether its system came up."""
    read = [image, checks_file] if checks_file else [image]
    files.check_writable(read)
    check_writable(report_file, [*read, *files.wanted])
    found = image_format(image, given_format)
    make_writable(evidence_directory)
    wanted, goss = loading.load_boot_test(checks_file)
    checks = (*units, *wanted.checks)
    if console_only and (checks or goss is not None or testinfra is not None):
        raise UsageError("--console-only does not ask the system, so that no check can be made")
    given = (firmware,) if firmware else wanted.firmware or ()
    notes: list[str] = []
    architecture = machine_choice.architecture_of(wanted_architecture, image, found, notes.append)
    names = machine_choice.all_of(given, image, found, architecture, notes.append)
    devices = wanted.devices.changed(
        disk=disk,
        network_card=network_card,
        tpm=tpm or wanted.devices.tpm,
        memory=memory,
        processors=processors,
    )
    machines = variants(names, devices, wanted.network, wanted.user_data, architecture)
    test = boot_test.BootTestJob(
        image, found, machines, checks, timeout, console_only, evidence_directory, testinfra, goss,
        fallback=wanted.fallback,
    )  # fmt: skip
    with output.progress_shown() as progress:
        for text in notes:
            progress.note(text)
        report = boot_test.run(
            test,
            lambda work, progress: find_acceleration(
                accel,
                template,
                work,
                architecture,
                log=progress.line,
                note=progress.note,
            ),
            progress,
        )
    if output.as_json or report.failure is None:
        show(output, report.verdicts)
    hand_over(output, image.name, report.verdicts, files, report_file, report.page)
    if failure := report.failure or report.rejection:
        raise failure

"""The commands `doctor` and `bench`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, command, with_output
from particle_os.cli.usage import settings
from particle_os.errors import EXIT_INFRASTRUCTURE, UsageError
from particle_os.jobs.host import doctor
from particle_os.jobs.plan import BuildOptions
from particle_os.system import host_packages

SIGNS = {"ok": "ok     ", "warning": "warning", "missing": "MISSING"}


@command("doctor")
@with_output
def doctor_command(output: OutputStyle) -> int:
    """Check that this host has everything that a build needs."""
    findings = [_values(), *doctor.examine()]
    output.show([asdict(finding) for finding in findings], _diagnosis(findings))
    return EXIT_INFRASTRUCTURE if any(f.status == "missing" for f in findings) else 0


def _values() -> doctor.Diagnosis:
    """Whether the user's config.toml can be used."""
    what = "values for options"
    try:
        settings.read(click.get_current_context().find_root())
    except UsageError as error:
        detail = f"{error.where}: {error.brief}" if error.where else error.brief
        return doctor.Diagnosis(what, "missing", detail, error.hint)
    return doctor.Diagnosis(what, "ok", settings.description())


def _diagnosis(findings: Sequence[doctor.Diagnosis]) -> Iterator[str]:
    for finding in findings:
        yield f"{SIGNS[finding.status]}  {finding.what}: {finding.detail}"
        if finding.status != "ok" and finding.advice:
            yield f"         do: {finding.advice}"
    missing = [f.advice for f in findings if f.status == "missing" and f.advice]
    if command := host_packages.at_once(missing):
        yield f"all that is missing: {command}"


@command("bench")
@click.option(
    "--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True,
    help="How virtual machines run; auto measures with each that works here.",
)  # fmt: skip
@option.OWN_ARCHITECTURE
@option.MIRROR
@option.APT_PROXY
@with_output
@option.build_options
def bench_command(output: OutputStyle, options: BuildOptions) -> None:
    """Measure how fast this host builds and boots a small recipe, in about five minutes.

    It starts with an empty cache of its own, which is removed at the end. The last line is for the
    table in docs/performance.md, which says what the figures mean.
    """
    # Import late: doctor needs no build.
    from particle_os.jobs.host import bench

    with output.progress_shown() as progress:
        found = bench.measure(options, progress)
    output.show(found.model_dump(mode="json"), found.lines())

"""The command `doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from particle_os.cli.command import OutputStyle, command, with_output
from particle_os.cli.usage import settings
from particle_os.errors import EXIT_INFRASTRUCTURE, UsageError
from particle_os.jobs.host import doctor

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

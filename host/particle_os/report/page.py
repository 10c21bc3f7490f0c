"""The report for people (`NAME.report.html`): one HTML file that needs no other file.

Much of its text comes from guests. Each text is escaped and cut (`pages.shown`), and lists are
bounded. The page's Content-Security-Policy forbids scripts and all external content.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup
from particle_agent.contract.inspection import Package

from particle_os.boot import files
from particle_os.boot.evidence import CONSOLE, SCREEN, console_tail
from particle_os.boot.observation.verdict import CheckResult, Verdict
from particle_os.errors import ParticleError
from particle_os.report import charts, guidance, network, pages
from particle_os.report.charts import ITEMS, Bar
from particle_os.report.guidance import FileLink, NextStep
from particle_os.report.results import Result
from particle_os.report.table import human_bytes
from particle_os.system.regular_file import read_regular

LINES = 200
PACKAGES = 5000
RECIPE_LINES = 2000
PICTURE_BYTES = 1 << 20
# More than escaping makes of the longest file that a system may send.
EVIDENCE_BYTES = 16 << 20
BEGINNINGS = {"png": b"\x89PNG\r\n\x1a\n", "svg+xml": b"<svg "}
# Addresses of QEMU's user network.
OURS = {"10.0.2.2": "the host itself", "10.0.2.3": "QEMU's resolver"}
FIRMWARE = {"bios": "BIOS", "uefi": "UEFI", "uefi-secure": "UEFI with Secure Boot"}
BOOT_TIMES = "boot-times"
# The facts that the page shows first, and their titles.
FACTS = {
    "system": "System",
    "kernel": "Kernel",
    "hostname": "Host name",
    "root-device": "Root",
    "timezone": "Time zone",
    "language": "Language",
    BOOT_TIMES: "Boot time",
}
UNIT_JOURNAL = "journal:"
INSTALLED = re.compile(r"(\S+) (\S+) (\S+) (\d{1,12})?")


@dataclass(frozen=True)
class RecipeText:
    """The recipe of a build: its path, its lines without confidential values, the other files.

    `directory` has the files of the build before it ends.
    """

    path: str
    lines: Sequence[str]
    directory: Path


@dataclass(frozen=True)
class Boot:
    """One boot test as the page shows it."""

    verdict: Verdict
    firmware: str
    phases: Sequence[Bar]
    checks: Sequence[CheckResult]
    facts: Mapping[str, Sequence[str]]
    startup: Sequence[tuple[str, str]]
    journals: Mapping[str, Sequence[str]]
    slowest: Sequence[Bar]
    journal: Sequence[str]
    tail: Sequence[str]
    screen: Markup | None
    plot: Markup | None


def document(
    name: str,
    verdicts: Sequence[Verdict],
    *,
    result: Result | None = None,
    packages: Sequence[Package] = (),
    evidence: Mapping[str, Path] | None = None,
    failure: ParticleError | None = None,
    source: RecipeText | None = None,
) -> str:
    """Returns the HTML page for the image or recipe `name`.

    `evidence` has the directory of each machine with the evidence of this test. `failure` is the
    error that ended the build. Without `packages`, the page shows the packages of the evidence.
    `source` is the recipe of a build.
    """
    packages = packages or installed(evidence or {}, verdicts)
    status, message = _outcome(verdicts, result, failure)
    return pages.render(
        "page.html",
        name=name,
        status=status,
        tone=tone,
        message=message,
        failure=failure,
        failure_lines=_lines(failure.tail) if failure is not None else (),
        result=result,
        created=_date(result.created if result is not None else time.time()),
        figures=_figures(verdicts, result, packages),
        boots=[_boot(verdict, (evidence or {}).get(verdict.machine)) for verdict in verdicts],
        artifacts=result.artifacts[:ITEMS] if result else (),
        stages=charts.stages(result) if result else (),
        phases=charts.build_waterfall(result) if result else (),
        networks=network.networks(result) if result else (),
        hosts=network.hosts(result) if result else (),
        notes=result.notes[:ITEMS] if result else (),
        findings=result.verification.findings[:ITEMS] if result and result.verification else (),
        largest=charts.largest(packages),
        packages=sorted(packages[:PACKAGES], key=lambda package: package.name),
        packages_total=len(packages),
        packages_bytes=sum(package.size for package in packages),
        steps=_steps(verdicts, result, failure, source),
        links=_links(verdicts, result, failure, evidence or {}, source),
        recipe=source.lines[:RECIPE_LINES] if source else (),
        recipe_path=source.path if source else "",
        human=human_bytes,
        ours=OURS,
        duration=charts.duration,
    )


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _outcome(
    verdicts: Sequence[Verdict], result: Result | None, failure: ParticleError | None
) -> tuple[str, str]:
    """The status, and a sentence with the reason."""
    if failure is not None:
        return failure.build_status, failure.brief
    if result is not None and result.verification is not None and result.verification.errors:
        return "defective", f"errors in the disk: {len(result.verification.errors)}"
    if verdicts:
        worst = min(verdicts, key=lambda v: (v.accepted, v.passed))
        return worst.status, worst.message
    if result is not None and result.status in ("failed", "infrastructure"):
        return result.status, "the build did not finish"
    return "not tested", "this image has not been booted"


def tone(status: str) -> Literal["good", "quiet", "bad"]:
    """The colour of a status."""
    if status == "passed":
        return "good"
    return "quiet" if status in ("not tested", "console-only") else "bad"


def _figures(
    verdicts: Sequence[Verdict], result: Result | None, packages: Sequence[Package]
) -> list[tuple[str, str]]:
    """The figures at the top of the page: a label and a value for each."""
    figures = [(f"boot, {_machine(v)}", charts.duration(v.seconds)) for v in verdicts]
    if checks := [check for verdict in verdicts for check in verdict.checks]:
        figures.append(("checks hold", f"{sum(c.passed for c in checks)} of {len(checks)}"))
    if images := [a for a in result.artifacts if a.is_image] if result is not None else []:
        smallest = min(image.allocated_bytes for image in images)
        figures.append(("smallest image", human_bytes(smallest)))
    if packages:
        figures.append(("packages", str(len(packages))))
    if result is not None and result.phases:
        figures.append(("build", charts.duration(charts.build_seconds(result))))
    return figures


def _machine(verdict: Verdict) -> str:
    """The machine of a verdict, and its step in the test of an update, for people."""
    step = f"({verdict.step})" if verdict.step else ""
    return " ".join(filter(None, (FIRMWARE[verdict.firmware], verdict.devices, step)))


def _steps(
    verdicts: Sequence[Verdict],
    result: Result | None,
    failure: ParticleError | None,
    source: RecipeText | None,
) -> Sequence[NextStep]:
    """The steps after a failure; none for an image alone, and for a build that succeeded."""
    if result is None or source is None:
        return ()
    return guidance.steps(result, failure, verdicts, source.path)


def _links(
    verdicts: Sequence[Verdict],
    result: Result | None,
    failure: ParticleError | None,
    evidence: Mapping[str, Path],
    source: RecipeText | None,
) -> Sequence[FileLink]:
    """The files to look at after a failure."""
    if result is None or source is None or (failure is None and result.is_good):
        return ()
    return guidance.links(result.recipe, source.directory, evidence, verdicts)


def _boot(verdict: Verdict, place: Path | None) -> Boot:
    journals = {
        name.removeprefix(UNIT_JOURNAL): _lines(text.splitlines())
        for name, text in list(verdict.facts.items())[:ITEMS]
        if name.startswith(UNIT_JOURNAL)
    }
    facts = {
        title: _lines(verdict.facts[name].splitlines())
        for name, title in FACTS.items()
        if verdict.facts.get(name)
    }
    startup = charts.startup(verdict.facts.get(BOOT_TIMES, ""))
    if startup:
        facts.pop(FACTS[BOOT_TIMES])
    return Boot(
        verdict=verdict,
        firmware=_machine(verdict),
        phases=charts.waterfall(verdict),
        checks=sorted(verdict.checks[:ITEMS], key=lambda check: check.passed),
        facts=facts,
        startup=startup,
        journals=journals,
        slowest=charts.slowest(_read(place, files.BLAME)),
        journal=_lines(_read(place, files.JOURNAL)),
        tail=_lines((console_tail(place / CONSOLE) if place else ()) or verdict.console_tail),
        screen=picture(place / SCREEN, "png") if place else None,
        plot=picture(place / files.PLOT, "svg+xml") if place else None,
    )


def picture(path: Path, kind: Literal["png", "svg+xml"]) -> Markup | None:
    """A picture as a data: URL; None if the file is missing, no picture, or too large."""
    try:
        data = read_regular(path, PICTURE_BYTES, follow=False)
    except OSError:
        return None
    if not data.startswith(BEGINNINGS[kind]):
        return None
    encoded = base64.b64encode(data).decode("ascii")
    return Markup("data:image/{};base64,{}").format(kind, encoded)


def _read(place: Path | None, name: str) -> list[str]:
    """The lines of a file of the evidence; empty without that file."""
    try:
        data = read_regular(place / name, EVIDENCE_BYTES, follow=False) if place else b""
    except OSError:
        return []
    return data.decode("utf-8", "replace").splitlines()


def installed(evidence: Mapping[str, Path], verdicts: Sequence[Verdict]) -> list[Package]:
    """The packages that a booted system reported."""
    for verdict in verdicts:
        place = evidence.get(verdict.machine)
        found = map(INSTALLED.fullmatch, _read(place, files.PACKAGES))
        packages = [
            Package(name=m[1], version=m[2], architecture=m[3], size=int(m[4] or 0) * 1024)
            for m in found
            if m
        ]
        if packages:
            return packages
    return []


def _lines(lines: Sequence[str]) -> tuple[str, ...]:
    """The last `LINES` lines."""
    return tuple(lines)[-LINES:]

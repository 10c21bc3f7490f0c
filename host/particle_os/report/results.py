"""The result of a build, as data (`NAME.result.json`) and as a table for people."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Literal

import pydantic
from particle_agent.stages.output.qemu import Format
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from particle_os.boot.verdict import Verdict
from particle_os.errors import printable
from particle_os.records import AptProxyResult, Record
from particle_os.sandbox.verification import Verification

BuildStatus = Literal["passed", "not-tested", "not-booted", "defective", "failed"]


class StageResult(Record):
    """One stage; `seconds` by the guest's clock.

    `parts` are the commands and packages that took longest, in seconds; they contain each other,
    and some ran side by side.
    """

    index: int
    type: str
    # As the recipe calls it.
    name: str | None = None
    status: Literal["done", "failed", "not-run"]
    seconds: float | None = None
    cached: bool = False
    # When it was done, by this build or the one whose checkpoint this one stands on; since 1970.
    done_at: float | None = None
    parts: dict[str, float] = pydantic.Field(default_factory=dict)


class ArtifactResult(Record):
    """One image file; `bytes` is what it seems, `allocated_bytes` what it takes on the disk.

    `tree_sha256` is the checksum of system/checksum.py, which does not read holes.
    """

    path: str
    format: Format
    # What the file must be decompressed with before it is an image.
    compression: Literal["zstd"] | None = None
    bytes: int
    virtual_bytes: int
    allocated_bytes: int
    sha256: str
    tree_sha256: str


class HelperResult(Record):
    """The VM that the stages ran in."""

    template: str
    key: str
    qemu: str
    accelerator: Literal["kvm", "tcg"]
    acceleration_reason: str
    security_note: str | None


class Result(Record):
    """Everything about one build. `version` grows when a field changes its meaning."""

    version: Literal[1] = 1
    particle_os: str
    status: BuildStatus
    # Names all that the images depend on, but for what the network had to give.
    build_key: str
    # Seconds since 1970.
    created: float
    recipe: str
    # Of the recipe's own file, and of those that it includes, by their paths as seen from it.
    recipe_sha256: str
    included_sha256: dict[str, str] = pydantic.Field(default_factory=dict)
    base: str
    base_digest: str
    architecture: str
    # The time that nothing in a reproducible image exceeds, in seconds since 1970.
    source_date: int | None = None
    helper: HelperResult
    apt_proxy: AptProxyResult | None = None
    stages: tuple[StageResult, ...]
    artifacts: tuple[ArtifactResult, ...]
    # What was found wrong with the disk before it was converted and booted.
    verification: Verification | None = None
    boot: tuple[Verdict, ...]
    # Seconds by the host's clock.
    phases: dict[str, float]
    # The most memory that the controller itself took, without QEMU.
    controller_peak_rss_bytes: int
    notes: tuple[str, ...] = ()

    def network_age(self, stages: Iterable[bool]) -> float:
        """Seconds since the first stage was done of those that read the network, as `stages` tells.

        0 when there is none.
        """
        pairs = zip(self.stages, stages, strict=True)
        done = [stage.done_at or self.created for stage, network in pairs if network]
        return max((time.time() - at for at in done), default=0.0)


class ArchiveResult(Record):
    """A root file system as a tar archive."""

    path: str
    bytes: int
    sha256: str


class SingleResult(Record):
    """Everything about one stage that was run alone. `version` as in `Result`."""

    version: Literal[1] = 1
    particle_os: str
    stage: StageResult
    options_sha256: str
    base: str
    base_digest: str
    helper: HelperResult
    apt_proxy: AptProxyResult | None = None
    archive: ArchiveResult | None
    phases: dict[str, float]
    notes: tuple[str, ...] = ()


def human_bytes(count: int) -> str:
    """Bytes in MiB or GiB."""
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"


def _described(proxy: AptProxyResult) -> str:
    if proxy.gone:
        return f"{proxy.url} went away during the build"
    if proxy.hits is None or proxy.misses is None:
        return proxy.url
    return f"{proxy.url}: {proxy.hits} of {proxy.hits + proxy.misses} requests from its cache"


def print_single(result: SingleResult, console: Console) -> None:
    """What is told of a stage that was run alone."""
    table = Table(box=box.SIMPLE, show_edge=False)
    table.add_column("what took longest")
    table.add_column("seconds", justify="right")
    for name, seconds in result.stage.parts.items():
        table.add_row(Text(printable(name)), f"{seconds:.1f}")
    if result.stage.parts:
        console.print(table)
    stage, base = result.stage, printable(result.base)
    console.print(Text(f"  done  {stage.type} on {base} in {stage.seconds or 0:.1f} s"))
    if result.apt_proxy:
        console.print(Text(f" proxy  {_described(result.apt_proxy)}"))
    for note in result.notes:
        console.print(Text(f"  note  {printable(note)}"))
    if result.archive is not None:
        size = human_bytes(result.archive.bytes)
        console.print(Text(f"  file  {result.archive.path} ({size})"), soft_wrap=True)


def print_result(result: Result, console: Console, paths: list[str]) -> None:
    """The summary at the end of a build: phases, stages, images, verdict, paths."""
    table = Table(box=box.SIMPLE, show_edge=False)
    table.add_column("phase / stage")
    table.add_column("seconds", justify="right")
    for phase, seconds in result.phases.items():
        table.add_row(phase, f"{seconds:.1f}")
        if phase == "stages":
            for stage in result.stages:
                took = "" if stage.seconds is None else f"{stage.seconds:.1f}"
                called = printable(f"{stage.name} ({stage.type})" if stage.name else stage.type)
                table.add_row(
                    Text(f"  {stage.index + 1}. {called}"), "cached" if stage.cached else took
                )
            if result.verification is not None:
                table.add_row("  verification", f"{result.verification.seconds:.1f}")
    console.print(table)
    for artifact in result.artifacts:
        virtual, allocated = map(human_bytes, (artifact.virtual_bytes, artifact.allocated_bytes))
        console.print(Text(f"{artifact.format:>6}  {virtual}, {allocated} allocated"))
    for finding in result.verification.findings if result.verification else ():
        serious = finding.severity == "error" and not finding.accepted
        style = "red" if serious else "yellow"
        console.print(Text(f"{finding.severity:>7}  {finding}", style=style))
    for verdict in result.boot:
        style = "green" if verdict.passed else "red"
        told = f"{verdict.status} in {verdict.seconds:.1f} s: {printable(verdict.message)}"
        console.print(Text(f"{verdict.firmware:>6}  {told}", style=style))
        for check in verdict.checks:
            sign, style = ("ok", "green") if check.passed else ("FAILED", "red")
            told = f"{check.name}: {check.detail[:200]}"
            console.print(Text.assemble(("        "), (f"{sign:<7}", style), told))
    if result.apt_proxy:
        console.print(Text(f" proxy  {_described(result.apt_proxy)}"))
    if result.helper.security_note:
        console.print(Text(f"  note  the helper VM was {result.helper.security_note}"))
    for path in paths:
        console.print(Text(f"  file  {path}"), soft_wrap=True)

"""The result of a build or of a single stage as a table for people."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from particle_os.documents import folding
from particle_os.errors import printable
from particle_os.records import AptProxyResult
from particle_os.report.results import CommitResult, ContainerResult, Result, SingleResult

# The most changed packages that the summary names; the report has more.
PACKAGES = 20


def human_bytes(count: int) -> str:
    """A number of bytes in the largest unit that leaves at least 1."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    units = ((1 << 20, "MiB"), (1 << 10, "KiB"))
    return next(
        (f"{count / size:.0f} {unit}" for size, unit in units if count >= size), f"{count} B"
    )


def _described(proxy: AptProxyResult) -> str:
    if proxy.gone:
        return f"{proxy.url} went away during the build"
    if proxy.hits is None or proxy.misses is None:
        return proxy.url
    return f"{proxy.url}: {proxy.hits} of {proxy.hits + proxy.misses} requests from its cache"


def print_single(result: SingleResult, console: Console) -> None:
    """Prints the result of a stage that ran alone."""
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


def _print_commit(commit: CommitResult, console: Console) -> None:
    """Prints a commit, and what has changed since its parent."""
    version = f" {commit.version}" if commit.version else ""
    signed = f", signed by {commit.signer}" if commit.signer else ""
    text = printable(f"{commit.ref}{version}: {commit.checksum}{signed}")
    console.print(Text(f"commit  {text}"), soft_wrap=True)
    if commit.parent is None or commit.files is None:
        return
    files = commit.files
    text = f"since {commit.parent[:12]}: {commit.packages_total} packages changed; files: "
    text += f"{files.added} added, {files.changed} changed, {files.removed} removed"
    console.print(Text(f"        {text}"), soft_wrap=True)
    for package in commit.packages[:PACKAGES]:
        versions = f"{package.before or 'new'} → {package.after or 'removed'}"
        console.print(Text(f"        {printable(f'{package.name} {versions}')}"))
    if (hidden := commit.packages_total - PACKAGES) > 0:
        console.print(Text(f"        and {hidden} more packages"))


def _layers(image: ContainerResult) -> str:
    return ", ".join(human_bytes(layer.bytes) for layer in image.layers)


def print_result(result: Result, console: Console, paths: list[str]) -> None:
    """Prints the summary of a build: phases, stages, images, findings, verdicts, `paths`."""
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
    if result.commit is not None:
        _print_commit(result.commit, console)
    if result.container is not None:
        text = f" image  {result.container.digest}, layers: {_layers(result.container)}"
        console.print(Text(text), soft_wrap=True)
    findings = result.verification.findings if result.verification else ()
    for finding, hidden in folding.folded(findings, lambda f: (f.code, f.severity, f.accepted)):
        serious = finding.severity == "error" and not finding.accepted
        style = "red" if serious else "yellow"
        console.print(Text(f"{finding.severity:>7}  {finding}", style=style))
        if hidden:
            console.print(Text(f"{'':>7}  and {len(hidden)} more like it", style=style))
    for verdict in result.boot:
        style = "green" if verdict.passed else "red"
        text = f"{verdict.status} in {verdict.seconds:.1f} s: {printable(verdict.message)}"
        console.print(Text(f"{verdict.machine:>6}  {text}", style=style))
        for check in verdict.checks:
            sign, style = ("ok", "green") if check.passed else ("FAILED", "red")
            text = f"{check.name}: {check.detail[:200]}"
            console.print(Text.assemble(("        "), (f"{sign:<7}", style), text))
    if result.apt_proxy:
        console.print(Text(f" proxy  {_described(result.apt_proxy)}"))
    if result.helper.security_note:
        console.print(Text(f"  note  the helper VM was {result.helper.security_note}"))
    for path in paths:
        console.print(Text(f"  file  {path}"), soft_wrap=True)

"""The summary of several builds: a table, data, files for CI systems, and a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import ParticleError, printable
from particle_os.fleet.build_end import BuildEnd, worst
from particle_os.report import charts, pages
from particle_os.report.ci import junit as as_junit
from particle_os.report.ci import markdown as as_markdown
from particle_os.report.page import tone
from particle_os.report.table import human_bytes

# The page of all images, beside their own ones.
PAGE = "particle-os.report.html"


def data(ends: Sequence[BuildEnd]) -> dict[str, Any]:
    """The builds as JSON shows them."""
    return {"images": [_image(end) for end in ends]}


def _image(end: BuildEnd) -> dict[str, Any]:
    error = None
    if end.error is not None:
        shown, log = end.error, str(end.error.log) if end.error.log else None
        error = {"error": shown.brief, "hint": shown.hint, "log": log, "tail": shown.tail}
    return {
        "name": end.order.name,
        "recipe": str(end.order.recipe),
        "variables": end.order.shown_variables,
        "status": end.status,
        "exit_code": end.exit_code,
        "seconds": end.seconds,
        "result": None if end.result is None else json.loads(end.result.model_dump_json()),
        "error": error,
    }


def size(end: BuildEnd) -> str:
    """The size of the smallest image for people; "" without one."""
    images = [a for a in end.result.artifacts if a.is_image] if end.result else []
    return human_bytes(min(a.allocated_bytes for a in images)) if images else ""


def show(ends: Sequence[BuildEnd], console: Console) -> None:
    """Prints a row for each image, and below the table what to do about each bad one."""
    table = Table(box=box.SIMPLE, show_edge=False)
    table.add_column("image")
    table.add_column("status")
    table.add_column("seconds", justify="right")
    table.add_column("size", justify="right")
    for end in ends:
        style = "green" if end.exit_code == 0 else "red" if end.exit_code else "yellow"
        seconds = f"{end.seconds:.1f}" if end.seconds else ""
        table.add_row(end.order.name, Text(end.status, style=style), seconds, size(end))
    console.print(table)
    for end in ends:
        if end.error is None:
            continue
        console.print(Text(printable(f"{end.order.name}: {end.error.brief}", 1000), style="red"))
        for line in end.error.tail[-5:]:
            console.print(Text(f"  | {printable(line, 300)}"))
        if end.error.log:
            console.print(Text(f"  log:   {printable(str(end.error.log))}"))
        for advice in (end.error.hint, end.error.command):
            if advice:
                console.print(Text(f"  do:    {printable(advice, 1000)}"))


def counted(ends: Sequence[BuildEnd]) -> str:
    """The numbers of images, for people: "2 of 3 images are good"."""
    good = sum(end.exit_code == 0 for end in ends)
    return f"{good} of {len(ends)} images are good"


def status(ends: Sequence[BuildEnd]) -> str:
    """The status of the worst build, as a job of one image shows it."""
    end = worst(ends)
    if end.result is not None:
        return end.result.status
    return end.status if end.error is None else end.error.build_status


def junit(ends: Sequence[BuildEnd]) -> bytes:
    """The JUnit XML of all builds."""
    return as_junit.of_images({end.order.name: _told(end) for end in ends})


def markdown(ends: Sequence[BuildEnd]) -> str:
    """The Markdown of all builds, below a table of them.

    The heading ends with the status of all, which host/ci/report.py reads.
    """
    rows = "".join(f"| {end.order.name} | {end.status} | {end.seconds:.1f} |\n" for end in ends)
    heading = f"## {counted(ends)}: {status(ends)}"
    parts = [f"{heading}\n\n| image | status | seconds |\n| --- | --- | --: |\n{rows}"]
    for end in ends:
        told, name = _told(end), end.order.name
        if isinstance(told, ParticleError):
            parts.append(as_markdown.failed_build(name, told))
        elif told is not None:
            parts.append(as_markdown.document(name, told))
    return "\n".join(parts)


def _told(end: BuildEnd) -> Sequence[Verdict] | ParticleError | None:
    """The boots of an image, or the error before them; None for a build that was not finished."""
    if end.result is not None and (end.result.boot or end.error is None):
        return end.result.boot
    return end.error


def page(ends: Sequence[BuildEnd]) -> str:
    """The page with all images, which links to the page of each one."""
    rows = [
        {
            "name": end.order.name,
            "status": end.status,
            "message": end.error.brief if end.error else "",
            "seconds": charts.duration(end.seconds) if end.seconds else "",
            "size": size(end),
            "variables": ", ".join(f"{n}={t}" for n, t in end.order.shown_variables.items()),
            "link": _link(end),
        }
        for end in ends
    ]
    good = all(end.exit_code == 0 for end in ends)
    return pages.render(
        "images.html",
        rows=rows,
        tone=tone,
        message=counted(ends),
        status="passed" if good else "failed",
    )


def _link(end: BuildEnd) -> str:
    """The page of an image, relative to the output directory; "" when there is none."""
    if end.exit_code is None or end.status in ("invalid", "killed"):
        return ""
    name = end.order.name
    good = end.result is not None and end.result.is_good
    return f"{name}.report.html" if good else f"{name}.failed/{name}.report.html"

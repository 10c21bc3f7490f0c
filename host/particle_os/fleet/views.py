"""Shows the builds of several images at the same time: one row or one prefix for each image."""

from __future__ import annotations

import json
import sys
from typing import IO, Any

import rich.progress
from rich.console import Console
from rich.markup import escape
from rich.table import Column
from rich.text import Text

from particle_os.errors import printable, whole_line
from particle_os.fleet.build_end import BuildEnd
from particle_os.fleet.order import Order
from particle_os.report.ci.github import unlike_commands


def step(event: dict[str, Any]) -> str | None:
    """The step that begins with an event, for people; None for an event that begins none."""
    match event:
        case {"event": "phase-started", "phase": str(phase)}:
            return phase
        case {"event": "stage-started", "index": int(index), "total": int(total)}:
            return f"{index + 1}/{total} {event.get('label', '')}"
        case {"event": "boot-phase", "name": str(name)}:
            return f"boot test: {name}"
    return None


def told(end: BuildEnd) -> str:
    """The end of a build in a few words."""
    if end.error is None:
        return end.status
    return f"{end.status}: {end.error.brief}"


class Silent:
    """Shows nothing."""

    def began(self, order: Order) -> None: ...

    def event(self, order: Order, event: dict[str, Any]) -> None: ...

    def ended(self, end: BuildEnd) -> None: ...

    def close(self) -> None: ...


class PlainView(Silent):
    """Prints one line for each step and note, with the name of the image before it."""

    def __init__(self, stream: IO[str], *, verbose: bool) -> None:
        self._stream = stream
        self._verbose = verbose

    def began(self, order: Order) -> None:
        self._print(order, "begins")

    def event(self, order: Order, event: dict[str, Any]) -> None:
        if (text := step(event)) is not None:
            self._print(order, f"{text} ...")
        elif event.get("event") == "note":
            self._print(order, f"note: {event.get('text', '')}")
        elif event.get("event") == "line" and self._verbose:
            self._print(order, f"    {event.get('text', '')}")

    def ended(self, end: BuildEnd) -> None:
        self._print(end.order, f"{told(end)} after {end.seconds:.1f} s")

    def _print(self, order: Order, text: str) -> None:
        line = whole_line(f"[{order.name}] {printable(text, 1000)}")
        print(line, file=self._stream, flush=True)


class JsonView(Silent):
    """Prints the events of all builds as JSON, each with the name of its image."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def event(self, order: Order, event: dict[str, Any]) -> None:
        self._print({"image": order.name, **event})

    def ended(self, end: BuildEnd) -> None:
        ended = {"event": "image-finished", "image": end.order.name, "status": end.status}
        self._print({**ended, "exit_code": end.exit_code, "seconds": end.seconds})

    def _print(self, data: dict[str, Any]) -> None:
        print(unlike_commands(json.dumps(data)), file=self._stream, flush=True)


class TerminalView(Silent):
    """A row for each running build, a line for each finished one, and a count of all."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        text = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self._rows = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description}", table_column=text),
            rich.progress.TimeElapsedColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            refresh_per_second=8,
        )
        self._total, self._done, self._bad = total, 0, 0
        self._all = self._rows.add_task(self._counted(), total=None)
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._rows.start()

    def _counted(self) -> str:
        bad = f", {self._bad} not good" if self._bad else ""
        return f"{self._done} of {self._total} images{bad}"

    def began(self, order: Order) -> None:
        self._tasks[order.name] = self._rows.add_task(escape(order.name), total=None)

    def event(self, order: Order, event: dict[str, Any]) -> None:
        if (text := step(event)) is not None:
            shown = escape(printable(f"{order.name}  {text}", 200))
            self._rows.update(self._tasks[order.name], description=shown)
        elif event.get("event") == "note":
            text = f"• {order.name}: {event.get('text', '')}"
            self._console.print(Text(printable(text, 1000), style="yellow"))

    def ended(self, end: BuildEnd) -> None:
        self._rows.remove_task(self._tasks.pop(end.order.name))
        self._done += 1
        self._bad += end.exit_code != 0
        sign = ("✓ ", "green") if end.exit_code == 0 else ("✗ ", "red")
        text = printable(f"{end.order.name}  {told(end)}", 300)
        self._console.print(Text.assemble(sign, text, (f"  {end.seconds:.1f} s", "cyan")))
        self._rows.update(self._all, description=self._counted())

    def close(self) -> None:
        self._rows.stop()


def make_view(style: str, total: int, *, verbose: bool) -> Silent:
    """The view for `--progress`, on standard error."""
    if style == "none":
        return Silent()
    if style == "json":
        return JsonView(sys.stderr)
    if style == "auto" and sys.stderr.isatty() and not verbose:
        return TerminalView(Console(stderr=True), total)
    return PlainView(sys.stderr, verbose=verbose)

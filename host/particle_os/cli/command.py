"""The frame of every command: the options for its output, its errors, and its exit code."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console

from particle_os.cli.usage.commands import JSON, Command
from particle_os.documents import folding
from particle_os.documents.writing import as_yaml
from particle_os.errors import (
    EXIT_INFRASTRUCTURE,
    EXIT_INTERNAL,
    EXIT_SIGNAL,
    Interrupted,
    InvalidDocument,
    ParticleError,
    Problem,
    printable,
    whole_line,
)
from particle_os.report.ci.github import Workflow, unlike_commands
from particle_os.report.live_view import make_sink
from particle_os.report.notify import NotifySink
from particle_os.report.progress import Progress, Sink
from particle_os.system import interrupt
from particle_os.system.gate import Gate
from particle_os.system.workspace import failed_call


def say(text: str, *, error: bool = False, styled: bool = True) -> None:
    """Prints lines on standard output or standard error; none of them is a command to a workflow.

    With `styled` False, no line has colours.
    """
    for line in text.splitlines() or [""]:
        click.echo(whole_line(line), err=error, color=None if styled else False)


def say_json(text: str, *, error: bool = False) -> None:
    """Prints a JSON text of the same content, in which no runner finds a command."""
    click.echo(unlike_commands(text), err=error)


def _workflow() -> Workflow:
    # The runner reads both outputs; standard output may be data for another program.
    return Workflow(lambda line: click.echo(line, err=True), os.environ)


@dataclass(frozen=True)
class OutputStyle:
    """The style in which a command shows its data and its progress, and their gate."""

    verbose: bool = False
    quiet: bool = False
    as_json: bool = False
    debug: bool = False
    progress: str = "auto"
    notify: bool = False
    gate: Gate = field(default_factory=Gate)
    workflow: Workflow = field(default_factory=_workflow)

    def show(self, data: object, lines: Iterable[str]) -> None:
        """Prints `data` as JSON if the user asks for JSON, and `lines` otherwise."""
        if self.as_json:
            say_json(json.dumps(self.gate.hide(data), indent=2))
            return
        for line in self.gate.lines([*lines]):
            say(line)

    def show_yaml(self, data: object) -> None:
        """Prints `data` as JSON if the user asks for JSON, and as YAML otherwise."""
        self.show(data, as_yaml(data))

    def draw(self, table: Callable[[Console], None]) -> None:
        """Prints what `table` writes to a console."""
        console = Console(no_color=_no_color(), highlight=False, soft_wrap=True)
        with console.capture() as drawn:
            table(console)
        say(drawn.get())

    @property
    def progress_style(self) -> str:
        """The style of the progress; with --json, a program may read standard error, too."""
        return "none" if self.as_json and self.progress == "auto" else self.progress

    def stop_commands(self) -> None:
        """Lets the workflow obey no line from now on, unless a program reads the lines."""
        if self.progress != "json" and not self.as_json:
            self.workflow.stop()

    @contextmanager
    def progress_shown(self) -> Iterator[Progress]:
        """Shows the progress on standard error for as long as the context lasts."""
        sink = make_sink(self.progress_style, verbose=self.verbose, quiet=self.quiet)
        sinks: list[Sink] = [sink] if sink else []
        if self.notify and sys.stderr.isatty():
            sinks.append(NotifySink(sys.stderr))
        progress = Progress(sinks, self.gate)
        self.stop_commands()
        try:
            yield progress
        finally:
            progress.close()


def command(name: str) -> Callable[[Callable[..., Any]], Command]:
    """Makes a function the command of this name."""
    return click.command(name, cls=Command)


def with_output(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that every command takes, as `output`; turns errors into exit codes."""

    @click.option("-v", "--verbose", is_flag=True, help="Show the output of the programs, too.")
    @click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
    # Read first: the errors of the other options depend on it.
    @click.option(
        "--json", JSON, is_flag=True, is_eager=True, help="Print data and errors as JSON."
    )
    @click.option("--debug", is_flag=True, help="Show a traceback with an error.")
    @click.option(
        "--progress",
        type=click.Choice(["auto", "plain", "json", "none"]),
        default="auto",
        show_default=True,
        help="How to show the progress on standard error.",
    )
    @click.option("--notify", is_flag=True, help="Tell the terminal the progress; ring at the end.")
    @functools.wraps(function)
    def wrapped(
        verbose: bool,
        quiet: bool,
        as_json: bool,
        debug: bool,
        progress: str,
        notify: bool,
        **arguments: Any,
    ) -> None:
        output = OutputStyle(verbose, quiet, as_json, debug, progress, notify)
        action = functools.partial(function, output=output, **arguments)
        try:
            sys.exit(guarded(action, as_json=as_json, debug=debug, gate=output.gate))
        finally:
            output.workflow.resume()

    return wrapped


def guarded(action: Callable[[], int | None], *, as_json: bool, debug: bool, gate: Gate) -> int:
    """Runs a command; shows its error, if any, through the gate, and returns the exit code."""
    interrupt.install()
    try:
        try:
            return action() or 0
        finally:
            # Within the outer `try`, which handles a signal that comes in this moment.
            interrupt.uninstall()
    except BrokenPipeError:
        return EXIT_SIGNAL + signal.SIGPIPE
    except (Exception, Interrupted) as error:
        if debug:
            _show_traceback(gate)
        shown, code = as_shown(error)
        gate.clean(shown)
        show_error(shown, code, as_json=as_json)
        return code


def _show_traceback(gate: Gate) -> None:
    for line in gate.text(traceback.format_exc()).splitlines():
        say(printable(line), error=True)


def as_shown(error: BaseException) -> tuple[ParticleError, int]:
    """The error that the user sees for `error`, and the exit code."""
    match error:
        case ParticleError():
            return error, error.exit_code
        case Interrupted(signal_number=number):
            return error.shown(), EXIT_SIGNAL + number
        case OSError():
            return failed_call(error), EXIT_INFRASTRUCTURE
        case _:
            text = f"internal error: {type(error).__name__}: {error}"
            hint = "This is a defect of particle-os; --debug shows where."
            return ParticleError(text, hint=hint), EXIT_INTERNAL


def show_error(error: ParticleError, code: int, *, as_json: bool) -> None:
    """Prints an error on standard error."""
    if as_json:
        problems = [p.data() for p in getattr(error, "problems", ())]
        log = str(error.log) if error.log else None
        data = {
            "error": error.brief, "where": error.where, "hint": error.hint, "log": log,
            "command": error.command,
            "tail": error.tail, "problems": problems, "exit_code": code,
        }  # fmt: skip
        say_json(json.dumps(data), error=True)
        return
    if isinstance(error, InvalidDocument):
        show_problems(error.problems, error.notes)
        return
    lines = [click.style("error: ", fg="red", bold=True) + printable(error.brief)]
    if error.where:
        lines.append(f"  where: {printable(error.where)}")
    lines += [f"  | {printable(line, 300)}" for line in folding.lines(error.tail)]
    if error.log:
        lines.append(f"  log:   {printable(str(error.log))}")
    if error.hint:
        lines.append(f"  do:    {printable(error.hint)}")
    if error.command:
        lines.append(f"  do:    {printable(error.command)}")
    say("\n".join(lines), error=True, styled=not _no_color())


def show_problems(
    problems: Sequence[Problem], notes: Sequence[Problem], *, every: bool = False
) -> None:
    """Prints the problems of documents on standard error, and the notes.

    Those of one kind are folded, unless `every` one is wanted.
    """
    for problem, more in ((p, None) for p in problems) if every else folding.problems(problems):
        for line in problem.lines():
            say(line, error=True)
        if more:
            say(f"  {more}", error=True)
    for note in map(str, notes) if every else folding.notes(notes):
        say(f"note: {note}", error=True)


def _no_color() -> bool:
    """Whether NO_COLOR is set and not empty (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))

"""How a command ends: what the user reads when it fails, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from particle_os.boot.verdict import Verdict
from particle_os.errors import (
    EXIT_INFRASTRUCTURE,
    EXIT_INTERNAL,
    EXIT_SIGNAL,
    Interrupted,
    InvalidDocument,
    NotBooted,
    ParticleError,
    printable,
)
from particle_os.system import interrupt


def no_color() -> bool:
    """https://no-color.org: set and not empty."""
    return bool(os.environ.get("NO_COLOR"))


def guarded(action: Callable[[], int | None], *, as_json: bool, debug: bool) -> int:
    """Runs a command; shows its error, if any, and returns the exit code."""
    interrupt.install()
    try:
        return action() or 0
    except BrokenPipeError:
        return EXIT_SIGNAL + signal.SIGPIPE
    except (Exception, Interrupted) as error:
        if debug:
            traceback.print_exc()
        failure, code = _told(error)
        show(failure, code, as_json=as_json)
        return code


def _told(error: BaseException) -> tuple[ParticleError, int]:
    """What to tell of an error, and the exit code."""
    match error:
        case ParticleError():
            return error, error.exit_code
        case Interrupted(signal_number=number):
            name = signal.Signals(number).name
            return ParticleError(f"ended by {name}"), EXIT_SIGNAL + number
        case OSError():
            return ParticleError(str(error)), EXIT_INFRASTRUCTURE
        case _:
            text = f"internal error: {type(error).__name__}: {error}"
            hint = "This is a defect of particle-os; --debug shows where."
            return ParticleError(text, hint=hint), EXIT_INTERNAL


def not_booted(verdict: Verdict, console_log: Path | None) -> NotBooted:
    """A verdict other than `passed`, as the error that the user sees.

    Without a `console_log` nothing has been kept of the test.
    """
    tail = []
    for name, text in verdict.facts.items():
        if name.startswith("journal:"):
            tail += [f"{name.removeprefix('journal:')}:", *text.splitlines()]
    other = {"bios": "uefi", "uefi": "bios", "uefi-secure": "bios"}.get(verdict.firmware)
    hint = None
    if other and verdict.status == "no-bootable-device":
        hint = f"An image that starts from the other firmware only needs --firmware {other}."
    elif console_log is None:
        hint = "--evidence DIRECTORY keeps the console, the screen and the journal."
    return NotBooted(
        f"the image did not pass its boot test: {verdict.status}: {verdict.message}",
        hint=hint,
        tail=[*tail, *verdict.console_tail],
        log=console_log,
    )


def show(error: ParticleError, code: int, *, as_json: bool) -> None:
    """Tells the user of an error, on standard error."""
    if as_json:
        problems = [asdict(p) for p in getattr(error, "problems", ())]
        log = str(error.log) if error.log else None
        data = {
            "error": error.brief, "where": error.where, "hint": error.hint, "log": log,
            "tail": error.tail, "problems": problems, "exit_code": code,
        }  # fmt: skip
        click.echo(json.dumps(data), err=True)
        return
    if isinstance(error, InvalidDocument):
        for problem in error.problems:
            click.echo(str(problem), err=True)
        for note in error.notes:
            click.echo(f"note: {note}", err=True)
        return
    lines = [click.style("error: ", fg="red", bold=True) + printable(error.brief)]
    if error.where:
        lines.append(f"  where: {printable(error.where)}")
    lines += [f"  | {printable(line, 300)}" for line in error.tail]
    if error.log:
        lines.append(f"  log:   {error.log}")
    if error.hint:
        lines.append(f"  do:    {printable(error.hint)}")
    click.echo("\n".join(lines), err=True, color=False if no_color() else None)

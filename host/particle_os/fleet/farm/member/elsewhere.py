"""A build on another machine than the client's: the recipe comes with the assignment, and the
images go to the shared cache.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from particle_os.errors import ParticleError
from particle_os.fleet.build_process import PROGRAM, SHOWN, Ended
from particle_os.fleet.farm import parcel, returned
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.farm.member.settings import WorkerSettings
from particle_os.system.workspace import failed_call, workspace


class Runner(Protocol):
    """Runs a command to its end; with `lines`, passes on the lines of programs, too."""

    def __call__(self, argv: list[str], *, lines: bool, variables: Mapping[str, str]) -> Ended: ...


def build(
    assignment: Assignment, run: Runner, say: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Builds, gives the images or the logs to the shared cache, and returns the answer.

    A result that another attempt has given already is the answer, and nothing is built, unless it
    blames the machine of that attempt.
    """
    _end_with_input()
    try:
        settings = WorkerSettings.of_environment()
        cache = settings.cache()
        with workspace() as work:
            earlier = returned.earlier_answer(cache, assignment.key, work.path)
            if earlier is not None:
                return earlier
            place, output = work.path / "recipe", work.path / "output"
            place.mkdir(mode=0o700)
            parcel.unpack(assignment.parcel, place)
            ended = run(
                _command(assignment, settings, place, output),
                lines=assignment.lines,
                variables=assignment.variables,
            )
            answer = ended.data()
            if not ended.cancelled:
                say({"event": "phase-started", "phase": "give the result to the shared cache"})
                returned.give(cache, assignment, answer, output, work.path)
            return answer
    except OSError as error:
        return _failed(failed_call(error))
    except ParticleError as error:
        return _failed(error)


def _command(
    assignment: Assignment, settings: WorkerSettings, place: Path, output: Path
) -> list[str]:
    recipe = place / assignment.recipe
    own = [f"--output={output}", *settings.arguments(), *SHOWN]
    return [*PROGRAM, "build", str(recipe), *assignment.arguments, *own]


def _end_with_input() -> None:
    """Ends this process, and its build, when standard input ends: the worker is dead then.

    This also ends a wait for a shared cache that hangs.
    """

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1 << 16):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _failed(error: ParticleError) -> dict[str, Any]:
    """The answer for a build that the worker could not run, or whose result is lost."""
    shown = {"error": error.brief, "hint": error.hint, "tail": list(error.tail)}
    return Ended(error.exit_code, 0.0, error=shown).data()

"""An ordinary build whose time is measured, and that of its downloads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from particle_os.apt import transfer
from particle_os.jobs.build import build
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan
from particle_os.report.benchmark import BuildTime
from particle_os.report.progress import Event, Line, Progress
from particle_os.report.results import Result
from particle_os.report.verdict import failure_of

# The phase of a build that boots the image.
BOOT_TEST = "boot test"


def timed(
    what: str, recipe: Path, options: BuildOptions, shown: Progress
) -> tuple[Result, BuildTime]:
    """Builds a recipe as the step `what`; the time is without that of the boot test.

    Raises what a build raises, and NotBooted or Defective for a bad image.
    """
    downloads = _Downloads()
    # A build adds its log to its progress, and reads its own phases there.
    progress = Progress([_Relay(shown), downloads], shown.gate)
    try:
        with shown.phase(what):
            began = time.monotonic()
            result = build(make_plan(recipe, options), progress)
            seconds = time.monotonic() - began
    finally:
        progress.close()
    if failure := failure_of(result, options.output_directory):
        raise failure
    return result, BuildTime(
        seconds=round(seconds - result.phases.get(BOOT_TEST, 0.0), 3),
        download_seconds=downloads.seconds,
        download_bytes=downloads.bytes,
    )


@dataclass(frozen=True)
class _Relay:
    """Passes the events of one build on to the progress of the whole."""

    progress: Progress

    def emit(self, event: Event) -> None:
        self.progress.emit(event)

    def close(self) -> None:
        """The progress of the whole goes on."""


@dataclass
class _Downloads:
    """Adds up what apt says about its downloads."""

    bytes: int = 0
    seconds: int = 0

    def emit(self, event: Event) -> None:
        if isinstance(event, Line) and (found := transfer.fetched(event.text)):
            self.bytes += found[0]
            self.seconds += found[1]

    def close(self) -> None:
        """Nothing is open."""

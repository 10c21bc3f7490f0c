"""Measures the speed of this host: builds a small recipe in a cache of its own, several times."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from particle_os import __version__
from particle_os.apt import transfer
from particle_os.errors import Interrupted, ParticleError, printable
from particle_os.jobs.build import build
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan
from particle_os.recipe.shipped import shipped
from particle_os.report.benchmark import Benchmark, BuildTime, Figures
from particle_os.report.progress import Event, Line, Progress
from particle_os.report.results import HelperResult, Result
from particle_os.report.verdict import failure_of
from particle_os.system.workspace import own_cache, workspace
from particle_os.vm import accel

RECIPE = "minimal-test"
# The last stage before `qemu`; the build that measures a change starts from here.
CHANGED = "users"
BOOT_TEST = "boot test"
PROCESSORS = Path("/proc/cpuinfo")
ADVICE = f"Build the recipe alone, which keeps the log: particle-os build {RECIPE}"


def measure(options: BuildOptions, progress: Progress) -> Benchmark:
    """Measures with each accelerator that `options.accel` allows and that works here.

    Of the options, only those that say how to reach packages and how VMs run count. Nothing
    of the builds is left. Raises what a build raises, NotBooted and Defective.
    """
    accel.check_device(options.accel)
    helper, found = _measure_one(options, progress)
    figures = [found]
    missing: dict[str, str] = {}
    if options.accel == "auto":
        if found.accelerator == "kvm":
            figures.append(_measure_one(replace(options, accel="tcg"), progress)[1])
        else:
            missing["kvm"] = helper.acceleration_reason
    return Benchmark(
        particle_os=__version__,
        recipe=RECIPE,
        processor=_processor(),
        processors=len(os.sched_getaffinity(0)),
        qemu=helper.qemu,
        figures=tuple(figures),
        missing=missing,
    )


def _measure_one(options: BuildOptions, progress: Progress) -> tuple[HelperResult, Figures]:
    """Measures with one accelerator, and returns it with the figures."""
    with workspace() as work, own_cache(work.path / "cache"), _removed_with_the_work():
        options = replace(options, output_directory=work.path / "out")
        # Makes the helper, the base, the checkpoints and the saved memory, and fetches packages.
        stages = replace(options, boot_test=False)
        first, first_time = _measured("first build", stages, progress)
        cold, cold_time = _measured("cold build", replace(options, cache=False), progress)
        _, changed_time = _measured("changed stage", replace(stages, refresh=CHANGED), progress)
    return first.helper, Figures(
        accelerator=first.helper.accelerator,
        first_build=first_time,
        helper_seconds=first.phases["helper VM"],
        base_seconds=first.phases["base image"],
        cold_build=cold_time,
        changed_stage=changed_time,
        boot_test_seconds=cold.phases[BOOT_TEST],
    )


def _measured(what: str, options: BuildOptions, shown: Progress) -> tuple[Result, BuildTime]:
    """Builds the recipe; the time is without that of the boot test."""
    downloads = _Downloads()
    # A build adds its log to its progress, and reads its own phases there.
    progress = Progress([_Relay(shown), downloads], shown.gate)
    try:
        with shown.phase(what):
            began = time.monotonic()
            result = build(make_plan(shipped()[RECIPE], options), progress)
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


@contextmanager
def _removed_with_the_work() -> Iterator[None]:
    """Removes from an error what names files that are removed with the workspace."""
    try:
        yield
    except ParticleError as error:
        error.log, error.command = None, None
        error.hint = error.hint or ADVICE
        raise
    except Interrupted as interrupted:
        interrupted.log = None
        raise


def _processor() -> str:
    """The model of the processor, as the kernel names it."""
    for line in PROCESSORS.read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return printable(" ".join(value.split()), 80)
    return "unknown processor"

"""Measures the speed of this host: builds a small recipe in a cache of its own, several times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from particle_os import __version__
from particle_os.errors import Interrupted, ParticleError, printable
from particle_os.jobs.host.timed_build import BOOT_TEST, timed
from particle_os.jobs.plan import BuildOptions
from particle_os.recipe.shipped import shipped
from particle_os.report.benchmark import Benchmark, Figures
from particle_os.report.progress import Progress
from particle_os.report.results import HelperResult
from particle_os.system.workspace import own_cache, workspace
from particle_os.vm import accel

RECIPE = "minimal-test"
# The last stage before `qemu`; the build that measures a change starts from here.
CHANGED = "users"
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
        recipe = shipped()[RECIPE]
        options = replace(options, output_directory=work.path / "out")
        # Makes the helper, the base, the checkpoints and the saved memory, and fetches packages.
        stages = replace(options, boot_test=False)
        first, first_time = timed("first build", recipe, stages, progress)
        options = replace(options, cache=False)
        cold, cold_time = timed("cold build", recipe, options, progress)
        stages = replace(stages, refresh=CHANGED)
        _, changed_time = timed("changed stage", recipe, stages, progress)
    return first.helper, Figures(
        accelerator=first.helper.accelerator,
        first_build=first_time,
        helper_seconds=first.phases["helper VM"],
        base_seconds=first.phases["base image"],
        cold_build=cold_time,
        changed_stage=changed_time,
        boot_test_seconds=cold.phases[BOOT_TEST],
    )


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

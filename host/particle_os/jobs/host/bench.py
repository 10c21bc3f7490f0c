"""Measures the speed of this host: builds a small recipe in a cache of its own, several times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from particle_os import __version__
from particle_os.architecture import ARCHITECTURES, usual
from particle_os.errors import Interrupted, ParticleError, printable
from particle_os.jobs.host.timed_build import BOOT_TEST, timed
from particle_os.jobs.plan import BuildOptions
from particle_os.recipe.shipped import shipped
from particle_os.report.benchmark import Benchmark, Figures
from particle_os.report.progress import Progress
from particle_os.report.results import HelperResult
from particle_os.system.workspace import own_cache, workspace
from particle_os.vm import accel

# The shipped recipe for images of each architecture.
RECIPES = {"amd64": "minimal-test", "arm64": "arm64"}
# The last stage before `qemu`; the build that measures a change starts from here.
CHANGED = "users"
PROCESSORS = Path("/proc/cpuinfo")
ADVICE = "Build the recipe alone, which keeps the log: particle-os build {}"


def measure(options: BuildOptions, progress: Progress) -> Benchmark:
    """Measures with each accelerator that `options.accel` allows and that works here.

    `options.architecture` is that of the images; None stands for this host's. Of the other options,
    only those that say how to reach packages and how VMs run count. Nothing of the builds is left.
    Raises what a build raises, NotBooted and Defective.
    """
    architecture = ARCHITECTURES[options.architecture] if options.architecture else usual()
    accel.check_device(options.accel, architecture)
    recipe = RECIPES[architecture.name]
    helper, found = _measure_one(recipe, options, progress)
    figures = [found]
    missing: dict[str, str] = {}
    if options.accel == "auto":
        if found.accelerator == "kvm":
            figures.append(_measure_one(recipe, replace(options, accel="tcg"), progress)[1])
        else:
            missing["kvm"] = helper.acceleration_reason
    return Benchmark(
        particle_os=__version__,
        recipe=recipe,
        architecture=architecture.name,
        processor=_processor(),
        processors=len(os.sched_getaffinity(0)),
        qemu=helper.qemu,
        figures=tuple(figures),
        missing=missing,
    )


def _measure_one(
    name: str, options: BuildOptions, progress: Progress
) -> tuple[HelperResult, Figures]:
    """Measures a shipped recipe with one accelerator, and returns it with the figures."""
    with workspace() as work, own_cache(work.path / "cache"), _removed_with_the_work(name):
        recipe = shipped()[name]
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
def _removed_with_the_work(recipe: str) -> Iterator[None]:
    """Removes from an error what names files that are removed with the workspace."""
    try:
        yield
    except ParticleError as error:
        error.log, error.command = None, None
        error.hint = error.hint or ADVICE.format(recipe)
        raise
    except Interrupted as interrupted:
        interrupted.log = None
        raise


def _processor() -> str:
    """The model of the processor, as the kernel names it; of arm64, its numbers (Arm: MIDR_EL1)."""
    lines = PROCESSORS.read_text(errors="replace").splitlines()
    # Of several kinds of processors, the first one counts.
    pairs = (line.partition(":") for line in reversed(lines))
    found = {key.strip(): " ".join(value.split()) for key, _, value in pairs}
    if model := found.get("model name"):
        return printable(model, 80)
    numbers = (found.get("CPU implementer"), found.get("CPU part"))
    if all(numbers):
        return printable("Arm processor {} {}".format(*numbers), 80)
    return "unknown processor"

"""The command `build`."""

from __future__ import annotations

from pathlib import Path

from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, as_shown, command, say_json, with_output
from particle_os.cli.several import SeveralBuilds, show_steps, with_several
from particle_os.cli.verdicts import (
    ResultFiles,
    hand_over,
    hand_over_failure,
    make_writable,
    with_files,
)
from particle_os.errors import Interrupted
from particle_os.jobs.delivery import already_there, last_time, prepare_output, touched_files
from particle_os.jobs.plan import BuildOptions, Plan
from particle_os.jobs.planning import images, make_plan, preview
from particle_os.report.results import Result
from particle_os.report.table import print_result
from particle_os.report.verdict import failure_of


@command("build")
@option.RECIPES_OR_PATTERNS
@option.VARIABLES
@option.ALLOW_OUTSIDE
@option.ALLOW_ENV
@option.OUTPUT
@option.BASE
@option.ARCHITECTURE
@option.ACCEL
@option.memory_option("2G")
@option.CPUS
@option.SCRATCH_SIZE
@option.MIRROR
@option.APT_PROXY
@option.TEMPLATE
@option.NO_CACHE
@option.REFRESH
@option.MAX_AGE
@option.shared_caches
@option.SOURCE_DATE
@option.NO_SAVE_MEMORY
@option.PLAIN
@option.NETWORK
@option.NO_BOOT_TEST
@option.KEEP_ON_FAILURE
@with_several
@option.DRY_RUN
@with_files
@with_output
@option.build_options
def build_command(
    output: OutputStyle,
    recipes: tuple[Path, ...],
    options: BuildOptions,
    files: ResultFiles,
    several: SeveralBuilds,
    dry_run: bool,
) -> int:
    """Build the image of RECIPE (particle-os.yml), boot it, and publish it in the output.

    A recipe with a matrix makes several images, and several recipes can be named, also by patterns
    such as 'images/*.yml'. The exit code is that of the worst build.
    """
    wanted = images(recipes, options)
    if len(wanted) == 1 and (several.on is None or dry_run):
        _build_one(*wanted[0], output, files, dry_run)
        return 0
    if dry_run:
        show_steps(wanted, output)
        return 0
    return several.build(wanted, output, files)


def _build_one(
    path: Path, options: BuildOptions, output: OutputStyle, files: ResultFiles, dry_run: bool
) -> None:
    plan = make_plan(path, options)
    if dry_run:
        steps = preview(plan)
        output.show(steps.data(), steps.lines())
        return
    make_writable(options.output_directory)
    files.check_writable(touched_files(plan))
    try:
        result = _build(plan, output)
    except (Exception, Interrupted) as error:
        hand_over_failure(output, plan.name, as_shown(error)[0], files)
        raise
    _show(result, options.output_directory, output, files)


def _build(plan: Plan, output: OutputStyle) -> Result:
    """Builds the image, or returns the result of an earlier build that is still valid."""
    with output.progress_shown() as progress:
        prepare_output(plan, progress.note)
        if result := already_there(plan, progress.note):
            progress.note("nothing has changed: the images are there and whole")
            return result
        if seconds := last_time(plan):
            progress.last_time(seconds)
        # Import late: loading the build takes longer than finding that nothing has changed.
        from particle_os.jobs import build

        return build.build(plan, progress)


def _show(result: Result, output_directory: Path, output: OutputStyle, files: ResultFiles) -> None:
    """Shows the result, and hands it over. Raises Defective or NotBooted for a bad image."""
    failed_directory = output_directory / f"{result.recipe}.failed"
    directory = output_directory if result.is_good else failed_directory
    failure = failure_of(result, directory)
    if failure is not None and not result.boot:
        hand_over_failure(output, result.recipe, failure, files)
    else:
        hand_over(output, result.recipe, result.boot, files)
    if output.as_json:
        say_json(result.model_dump_json(indent=2))
    elif not output.quiet:
        made = [str(path) for path in result.files(directory)]
        output.draw(lambda console: print_result(result, console, made))
    if failure is not None:
        raise failure

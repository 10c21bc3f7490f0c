"""The command line: arguments, exit codes, and how errors are shown; nothing else."""

from __future__ import annotations

import functools
import json
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import click
from particle_agent.options import bytes_of
from particle_agent.stages import RECIPE_STAGES
from rich.console import Console

from particle_os import __version__, boot_test, cache, doctor, helper, recipe, report, shell
from particle_os import build as building
from particle_os.errors import (
    EXIT_INFRASTRUCTURE,
    EXIT_SIGNAL,
    EXIT_USAGE,
    InvalidDocument,
    Problem,
    UsageError,
    printable,
)
from particle_os.outcome import guarded, no_color, not_booted, show
from particle_os.plan import MAX_AGE_SECONDS, Options, Plan, make_plan
from particle_os.progress import Progress, make_sink
from particle_os.vm import accel
from particle_os.vm.accel import KVM_MEMORY
from particle_os.workspace import Workspace, cache_directory, data_directory, workspace

# A helper VM with less, or a scratch disk of less, is of no use.
LEAST_BYTES = 512 << 20


@dataclass(frozen=True)
class Output:
    """How the user wants to be told."""

    verbose: bool = False
    quiet: bool = False
    as_json: bool = False
    debug: bool = False
    progress: str = "auto"

    def data(self) -> Console:
        """Standard output, for what the command was asked for."""
        return Console(no_color=no_color(), highlight=False, soft_wrap=True)

    def progress_sinks(self) -> Progress:
        # Who reads JSON on standard error wants nothing else there, unless it is asked for.
        progress = "none" if self.as_json and self.progress == "auto" else self.progress
        sink = make_sink(progress, verbose=self.verbose, quiet=self.quiet)
        return Progress([sink] if sink else [])


def _common(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command takes, gathered into `output`; errors become exit codes."""

    @click.option("-v", "--verbose", is_flag=True, help="Show what the programs print.")
    @click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
    @click.option("--json", "as_json", is_flag=True, help="Print data and errors as JSON.")
    @click.option("--debug", is_flag=True, help="Show a traceback with an error.")
    @click.option(
        "--progress",
        type=click.Choice(["auto", "plain", "json", "none"]),
        default="auto",
        show_default=True,
        help="How to show what happens, on standard error.",
    )
    @functools.wraps(function)
    def command(
        verbose: bool, quiet: bool, as_json: bool, debug: bool, progress: str, **arguments: Any
    ) -> None:
        output = Output(verbose, quiet, as_json, debug, progress)
        action = functools.partial(function, output=output, **arguments)
        sys.exit(guarded(action, as_json=as_json, debug=debug))

    return command


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,6}[MGmg]", value):
        raise click.BadParameter("expected a size such as 2G or 1536M")
    size = bytes_of(value.upper())
    if size < LEAST_BYTES:
        raise click.BadParameter(f"at least {LEAST_BYTES >> 20}M is needed")
    return size


def _cache_size(context: click.Context, parameter: click.Parameter, value: str) -> int:
    if value == "0":
        return 0
    if not re.fullmatch(r"[1-9][0-9]{0,6}[MGmg]", value):
        raise click.BadParameter("expected a size such as 20G or 500M, or 0")
    return bytes_of(value.upper())


def _units(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> Any:
    for unit in value:
        if not recipe.is_unit_name(unit):
            raise click.BadParameter(f"'{unit}' is no systemd unit such as 'ssh.service'")
    return value


class _Path(click.Path):
    """A path as it is given; what is wrong with it is told by who uses it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, readable=False, **options)

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        if value == "":
            self.fail("the path is empty", parameter, context)
        return super().convert(value, parameter, context)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Builds bootable Debian images as an ordinary user and proves that they boot."""


RECIPE = click.argument("recipe_path", metavar="RECIPE", type=_Path())
ACCEL = click.option(
    "--accel",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="How virtual machines run; auto takes KVM when a guest really runs under it.",
)
MEMORY = click.option(
    "--memory",
    callback=_size,
    metavar="SIZE",
    help="The memory of the VM that this starts: 2G.",
)


@cli.command("build")
@RECIPE
@click.option("--output", "output_directory", type=_Path(file_okay=False),
              default=Path("out"), show_default=True, help="Where the images go.")  # fmt: skip
@click.option("--base", metavar="REF", help="Start from this base image instead of the recipe's.")
@ACCEL
@MEMORY
@click.option("--cpus", type=click.IntRange(1, 64), help="The helper VM's processors.")
@click.option("--scratch-size", callback=_size, metavar="SIZE", default="32G", show_default=True,
              help="The most that the system under construction may take.")  # fmt: skip
@click.option("--mirror", metavar="URL", envvar="PARTICLE_OS_MIRROR", show_envvar=True,
              help="The Debian mirror for the helper VM and for mmdebstrap: bases.")  # fmt: skip
@click.option("--template", default="debian-trixie", show_default=True, help="The helper VM.")
@click.option("--no-cache", is_flag=True, help="Do everything anew, and keep nothing of it.")
@click.option("--refresh", metavar="STAGE",
              help="Do this stage (its number or type; 'base') and all after it anew.")  # fmt: skip
@click.option("--max-age", type=click.IntRange(0), default=int(MAX_AGE_SECONDS // 3600),
              show_default=True, metavar="HOURS",
              help="How long a stage that reads the network need not be done anew.")  # fmt: skip
@click.option("--no-boot-test", is_flag=True, help="Publish without having booted the image.")
@click.option("--keep-on-failure", is_flag=True, help="Keep the disks of a failed build.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@_common
def build_command(
    output: Output, recipe_path: Path, output_directory: Path, base: str | None, accel: accel.Wish,
    memory: int | None, cpus: int | None, scratch_size: int, mirror: str | None, template: str,
    no_cache: bool, refresh: str | None, max_age: int, no_boot_test: bool,
    keep_on_failure: bool, dry_run: bool,
) -> int:  # fmt: skip
    """Build the image of RECIPE, boot it, and publish it in the output directory."""
    options = Options(
        output=output_directory,
        base=base,
        accel=accel,
        memory=memory,
        cpus=cpus,
        scratch=scratch_size,
        boot_test=not no_boot_test,
        keep_on_failure=keep_on_failure,
        template=template,
        mirror=mirror,
        cache=not no_cache,
        refresh=refresh,
        max_age=max_age * 3600,
    )
    plan = make_plan(recipe_path, options)
    if dry_run:
        _show_plan(plan, output)
        return 0
    progress = output.progress_sinks()
    try:
        result = building.build(plan, progress)
    finally:
        progress.close()
    booted = result.status != "not-booted"
    place = output_directory if booted else output_directory / f"{result.recipe}.failed"
    names = [a.path for a in result.artifacts]
    names += [f"{result.recipe}.{end}" for end in ("result.json", "log", "console.log")]
    if output.as_json:
        click.echo(result.model_dump_json(indent=2))
    elif not output.quiet:
        report.print_result(result, output.data(), [str(place / name) for name in names])
    if not booted:
        raise not_booted(result.boot[-1], place / f"{result.recipe}.console.log")
    return 0


def _show_plan(plan: Plan, output: Output) -> None:
    steps = [
        {"step": "helper VM", "detail": plan.template.name, "ready": plan.helper is not None},
        {"step": "base image", "detail": plan.base_reference, "ready": plan.base is not None},
    ]
    for number, stage in enumerate(plan.loaded.recipe.stages, start=1):
        steps.append({"step": f"stage {number}", "detail": stage.type, "ready": False})
    disk = plan.loaded.disk
    steps.append({"step": "images", "detail": ", ".join(disk.formats), "ready": False})
    if plan.options.boot_test:
        firmware = ", ".join(plan.loaded.recipe.boot_test.firmware)
        steps.append({"step": "boot test", "detail": firmware, "ready": False})
    if output.as_json:
        digest = plan.base.digest if plan.base else None
        click.echo(
            json.dumps({"recipe": plan.name, "base_digest": digest, "steps": steps}, indent=2)
        )
        return
    for step in steps:
        ready = " (ready)" if step["ready"] else ""
        click.echo(f"{step['step']:<12} {step['detail']}{ready}")


@cli.command("shell")
@RECIPE
@click.option("--at", metavar="STAGE", help="The state after this stage (its number or type).")
@click.option("--failed", is_flag=True, help="The state in which a stage of the last build failed.")
@click.option("--base", metavar="REF", help="As it was given to build.")
@click.option("--mirror", metavar="URL", envvar="PARTICLE_OS_MIRROR", help="As given to build.")
@ACCEL
@MEMORY
@click.option("--cpus", type=click.IntRange(1, 64), help="The helper VM's processors.")
@click.option("--template", default="debian-trixie", hidden=True)
@_common
def shell_command(
    output: Output, recipe_path: Path, at: str | None, failed: bool, base: str | None,
    mirror: str | None, accel: accel.Wish, memory: int | None, cpus: int | None, template: str,
) -> int:  # fmt: skip
    """A root shell in the system of RECIPE as a stage left it, in a VM that is thrown away."""
    if at is not None and failed:
        raise UsageError("--at and --failed exclude each other")
    options = Options(
        output=Path(), base=base, mirror=mirror, accel=accel, memory=memory, cpus=cpus,
        template=template,
    )  # fmt: skip
    plan = make_plan(recipe_path, options)
    progress = output.progress_sinks()
    try:
        with workspace() as work:
            acceleration = _acceleration(accel, template, work, progress)
        return shell.enter(plan, acceleration, progress, at=at, failed=failed)
    finally:
        progress.close()


@cli.command("boot-test")
@click.argument("image", type=_Path(exists=True, dir_okay=False))
@click.option("--format", "image_format", type=click.Choice(["raw", "qcow2"]),
              help="The image's format; found out by itself otherwise.")  # fmt: skip
@click.option(
    "--unit", "units", multiple=True, callback=_units, help="A systemd unit that must be active."
)
@ACCEL
@MEMORY
@click.option(
    "--timeout", type=click.IntRange(1, 86400), metavar="SECONDS", help="How long to wait."
)
@click.option("--template", default="debian-trixie", show_default=True, hidden=True)
@_common
def boot_test_command(
    output: Output, image: Path, image_format: Literal["raw", "qcow2"] | None,
    units: tuple[str, ...], accel: accel.Wish, memory: int | None, timeout: int | None,
    template: str,
) -> int:  # fmt: skip
    """Boot IMAGE through a throwaway overlay and tell whether it came up."""
    found = boot_test.image_format(image)
    progress = output.progress_sinks()
    try:
        with workspace() as work:
            acceleration = _acceleration(accel, template, work, progress)
            with progress.phase("boot test"):
                verdict = boot_test.boot(
                    image,
                    acceleration,
                    format=image_format or found,
                    directory=work.path / "boot-test",
                    transcript=work.path / "console.log",
                    units=units,
                    memory=memory or boot_test.MEMORY,
                    timeout=timeout,
                )
    finally:
        progress.close()
    if output.as_json:
        click.echo(verdict.model_dump_json(indent=2))
    else:
        click.echo(f"{verdict.status} in {verdict.seconds:.1f} s: {printable(verdict.message)}")
    if not verdict.passed:
        raise not_booted(verdict, None)
    return 0


def _acceleration(
    wish: accel.Wish, template: str, work: Workspace, progress: Progress
) -> accel.Acceleration:
    """The accelerator for a boot test; KVM is tried with the helper's kernel."""
    if wish == "tcg":
        return accel.TCG
    if wish == "auto" and not accel.device_opens():
        progress.note("no access to /dev/kvm: emulating with TCG, which is slower")
        return accel.TCG
    made = helper.ensure(
        helper.load_template(template),
        cache=cache_directory(),
        work=work,
        log=progress.line,
        note=progress.note,
    )
    return accel.choose(
        wish,
        kernel=made.kernel,
        initrd=made.initrd,
        memory_file=cache_directory() / KVM_MEMORY,
        directory=work.path / "kvm-probe",
        note=progress.note,
    )


@cli.command("validate")
@click.argument("recipes", nargs=-1, required=True, type=_Path())
@_common
def validate_command(output: Output, recipes: tuple[Path, ...]) -> int:
    """Check RECIPES and tell everything that is wrong with them."""
    problems: list[Problem] = []
    for path in recipes:
        try:
            recipe.load(path)
        except InvalidDocument as invalid:
            problems += invalid.problems
    if output.as_json:
        click.echo(json.dumps({"problems": [asdict(p) for p in problems]}, indent=2))
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        if not problems and not output.quiet:
            click.echo(f"{len(recipes)} valid")
    return EXIT_USAGE if problems else 0


@cli.command("list")
@click.argument("what", type=click.Choice(["recipes", "stages", "templates"]), default="recipes")
@_common
def list_command(output: Output, what: str) -> None:
    """List the example recipes, the stages, or the helper VM templates."""
    rows: list[tuple[str, str]] = []
    if what == "recipes":
        for path in sorted(data_directory("recipes").glob("*.yml")):
            rows.append((str(path), recipe.load(path).recipe.description))
    elif what == "templates":
        rows = [(p.stem, helper.load_template(p.stem).description) for p in helper.templates()]
    else:
        rows = [(recipe.stage_name(k), (k.__doc__ or "").splitlines()[0]) for k in RECIPE_STAGES]
    if output.as_json:
        click.echo(json.dumps([{"name": n, "description": d} for n, d in rows], indent=2))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, description in rows:
        click.echo(f"{name:<{width}}  {description}")


@cli.command("doctor")
@_common
def doctor_command(output: Output) -> int:
    """Look whether this host has what a build needs."""
    findings = doctor.examine()
    if output.as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=2))
    else:
        signs = {"ok": "ok     ", "warning": "warning", "missing": "MISSING"}
        for finding in findings:
            click.echo(f"{signs[finding.status]}  {finding.what}: {finding.detail}")
            if finding.status != "ok" and finding.advice:
                click.echo(f"         do: {finding.advice}")
    return EXIT_INFRASTRUCTURE if any(f.status == "missing" for f in findings) else 0


@cli.group("cache")
def cache_group() -> None:
    """Show, check and clear what earlier builds left for later ones."""


@cache_group.command("list")
@_common
def cache_list_command(output: Output) -> None:
    """List what is in the cache: kind, size, hours since its last use, name."""
    found = cache.entries(cache_directory())
    if output.as_json:
        click.echo(json.dumps([_cache_row(entry) for entry in found], indent=2))
        return
    for entry in found:
        size = report.human_bytes(entry.size)
        name = f"{entry.name} {entry.label}".strip()
        click.echo(f"{entry.kind:<10}  {size:>9}  {entry.age() / 3600:7.1f} h  {name}")
    click.echo(f"total       {report.human_bytes(sum(e.size for e in found)):>9}")


def _cache_row(entry: cache.Entry) -> dict[str, object]:
    return {
        "kind": entry.kind, "name": entry.name, "label": entry.label, "bytes": entry.size,
        "used": entry.used,
    }  # fmt: skip


@cache_group.command("prune")
@click.option("--size", callback=_cache_size, default=f"{cache.LIMIT_BYTES >> 30}G",
              show_default=True, metavar="SIZE",
              help="Remove the longest unused until the rest takes this; 0: all.")  # fmt: skip
@click.option("--max-age", type=click.IntRange(0), metavar="HOURS",
              help="Also remove what was not used for so long.")  # fmt: skip
@_common
def cache_prune_command(output: Output, size: int, max_age: int | None) -> None:
    """Remove what has not been used for long; never what a running build stands on."""
    seconds = None if max_age is None else max_age * 3600
    removed = cache.prune(cache_directory(), limit=size, max_age=seconds)
    if output.as_json:
        click.echo(json.dumps([_cache_row(entry) for entry in removed], indent=2))
    elif not output.quiet:
        freed = report.human_bytes(sum(entry.size for entry in removed))
        click.echo(f"{len(removed)} removed, {freed} freed")


@cache_group.command("verify")
@_common
def cache_verify_command(output: Output) -> int:
    """Check the content of what is in the cache; damaged entries are named, and exit code is 5."""
    found = cache.damaged(cache_directory())
    if output.as_json:
        click.echo(json.dumps([_cache_row(entry) for entry in found], indent=2))
    else:
        for entry in found:
            click.echo(f"damaged: {' '.join(map(str, entry.paths))}")
        if not found and not output.quiet:
            click.echo("all whole")
    return EXIT_INFRASTRUCTURE if found else 0


@cli.command("schema")
@_common
def schema_command(output: Output) -> None:
    """Print the JSON Schema of recipes."""
    click.echo(json.dumps(recipe.json_schema(), indent=2, sort_keys=True))


@cli.command("version")
@_common
def version_command(output: Output) -> None:
    """Print the version of particle-os."""
    click.echo(json.dumps({"version": __version__}) if output.as_json else __version__)


@cli.command("help")
@click.argument("command", required=False)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> None:
    """Show help for particle-os or for COMMAND."""
    assert context.parent is not None
    if command is None:
        click.echo(context.parent.get_help())
        return
    found = cli.get_command(context, command)
    if found is None:
        known = ", ".join(cli.list_commands(context))
        raise click.UsageError(f"there is no command '{command}'; there are: {known}")
    with click.Context(found, info_name=command, parent=context.parent) as inner:
        click.echo(found.get_help(inner))


def main() -> None:
    """The console script."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        if "--json" in sys.argv:
            show(UsageError(error.format_message()), error.exit_code, as_json=True)
        else:
            error.show()
        code = error.exit_code
    except click.Abort:
        code = EXIT_SIGNAL + signal.SIGINT
    sys.exit(code or 0)

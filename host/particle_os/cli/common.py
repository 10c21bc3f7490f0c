"""What the commands share: their common options, and how they tell what they found."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from particle_agent.contract.values import bytes_of
from rich.console import Console

from particle_os.apt import proxy as apt_proxy
from particle_os.cli.outcome import guarded, no_color
from particle_os.report.progress import Progress, make_sink
from particle_os.sandbox import helper
from particle_os.sandbox.template import load_template
from particle_os.system.workspace import Workspace, cache_directory
from particle_os.vm import accel
from particle_os.vm.accel import KVM_MEMORY
from particle_os.vm.image_format import FORMATS

# A helper VM with less, or a scratch disk of less, is of no use.
LEAST_BYTES = 512 << 20


@dataclass(frozen=True)
class OutputStyle:
    """How the user wants to be told."""

    verbose: bool = False
    quiet: bool = False
    as_json: bool = False
    debug: bool = False
    progress: str = "auto"

    def data(self) -> Console:
        """Standard output, for what the command was asked for."""
        return Console(no_color=no_color(), highlight=False, soft_wrap=True)

    @contextmanager
    def progress_shown(self) -> Iterator[Progress]:
        """What happens meanwhile is shown on standard error."""
        # Who reads JSON on standard error wants nothing else there, unless it is asked for.
        style = "none" if self.as_json and self.progress == "auto" else self.progress
        sink = make_sink(style, verbose=self.verbose, quiet=self.quiet)
        progress = Progress([sink] if sink else [])
        try:
            yield progress
        finally:
            progress.close()


def common(function: Callable[..., Any]) -> Callable[..., Any]:
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
        output = OutputStyle(verbose, quiet, as_json, debug, progress)
        action = functools.partial(function, output=output, **arguments)
        sys.exit(guarded(action, as_json=as_json, debug=debug))

    return command


def size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,6}[MGmg]", value):
        raise click.BadParameter("expected a size such as 2G or 1536M")
    wanted = bytes_of(value.upper())
    if wanted < LEAST_BYTES:
        raise click.BadParameter(f"at least {LEAST_BYTES >> 20}M is needed")
    return wanted


class PathType(click.Path):
    """A path as it is given; what is wrong with it is told by who uses it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, readable=False, **options)

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        if value == "":
            self.fail("the path is empty", parameter, context)
        return super().convert(value, parameter, context)


def _variables(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in value:
        name, equals, rest = text.partition("=")
        if not equals or not name:
            # What stands after the sign may be a password.
            shown = f"{name}=…" if equals else name
            raise click.BadParameter(f"expected NAME=VALUE, found '{shown}'")
        if name in found:
            raise click.BadParameter(f"'{name}' is given twice")
        found[name] = rest
    return found


VARIABLES = click.option(
    "--set",
    "variables",
    multiple=True,
    callback=_variables,
    metavar="NAME=VALUE",
    help="A value for a variable of the recipe; of a list, its items with commas between.",
)
RECIPE = click.argument("recipe_path", metavar="RECIPE", type=PathType())
FORMAT = click.option(
    "--format", "given_format", type=click.Choice(list(FORMATS)),
    help="The image's format; raw and qcow2 are found out.",
)  # fmt: skip
ACCEL = click.option(
    "--accel",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="How virtual machines run; auto takes KVM when a guest really runs under it.",
)


def memory_option(default: str) -> Callable[[Any], Any]:
    """The option for the memory of a VM."""
    what = f"The memory of the VM that this starts.  [default: {default}]"
    return click.option("--memory", callback=size, metavar="SIZE", help=what)


def _apt_proxy(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not apt_proxy.is_wish(value):
        raise click.BadParameter("expected auto, none, or a URL such as http://127.0.0.1:3142")
    return value


APT_PROXY = click.option(
    "--apt-proxy",
    callback=_apt_proxy,
    metavar="auto|none|URL",
    envvar="PARTICLE_OS_APT_PROXY",
    show_envvar=True,
    help="A proxy for packages, such as apt-cacher-ng; auto finds one that answers.",
)


def find_acceleration(
    wish: accel.Mode, template: str, work: Workspace, progress: Progress
) -> accel.Acceleration:
    """The accelerator for a boot test; KVM is tried with the helper's kernel."""
    if wish == "tcg":
        return accel.TCG
    if wish == "auto" and not accel.device_opens():
        progress.note("no access to /dev/kvm: emulating with TCG, which is slower")
        return accel.TCG
    made = helper.ensure(
        load_template(template),
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

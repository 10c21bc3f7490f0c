"""The builds of several images by one command, on this machine or on a farm."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, as_shown, say_json
from particle_os.cli.verdicts import ResultFiles, make_writable
from particle_os.errors import Interrupted
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan, preview

if TYPE_CHECKING:
    from particle_os.fleet.several import Engine

Images = Sequence[tuple[Path, BuildOptions]]
_OPTIONS = (option.JOBS, option.FAIL_FAST, option.ON, option.FARM_KEYS)


@dataclass(frozen=True)
class SeveralBuilds:
    """The options for the builds of several images."""

    jobs: int | None
    fail_fast: bool
    on: str | None
    farm_keys: Path | None

    def build(self, wanted: Images, output: OutputStyle, files: ResultFiles) -> int:
        """Builds several images, each in a process of its own; returns the exit code."""
        from particle_os.fleet.several import Fleet

        engine = None if self.on is None else self._farm(self.on, lines=output.verbose)
        fleet = Fleet.of(wanted, self.jobs, fail_fast=self.fail_fast, engine=engine)
        make_writable(fleet.directory)
        files.check_writable()
        style = "none" if output.quiet else output.progress_style
        output.stop_commands()
        try:
            fleet.build(style, verbose=output.verbose)
        except (Exception, Interrupted) as error:
            shown = as_shown(error)[0]
            output.gate.clean(shown)
            fleet.abandon(shown)
            raise
        finally:
            output.workflow.command(fleet.annotations())
            files.write(fleet.junit(), fleet.markdown())
            fleet.write_page()
        if output.as_json:
            say_json(json.dumps(fleet.data(), indent=2))
        elif not output.quiet:
            output.draw(fleet.show)
        return fleet.exit_code

    def _farm(self, on: str, *, lines: bool) -> Engine:
        """The engine that builds on the farm `on`. Raises UsageError."""
        from particle_os.fleet.farm.client import places

        return places.engine_of(on, self.farm_keys, lines=lines)


def show_steps(wanted: Images, output: OutputStyle) -> None:
    """Shows the steps of the builds of several images."""
    steps = [preview(make_plan(*each)) for each in wanted]
    shown = chain.from_iterable(each.named_lines() for each in steps)
    output.show({"images": [each.data() for each in steps]}, shown)


def with_several(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for the builds of several images, as `several`."""

    @functools.wraps(function)
    def wrapped(
        jobs: int | None, fail_fast: bool, on: str | None, farm_keys: Path | None, **others: Any
    ) -> Any:
        return function(several=SeveralBuilds(jobs, fail_fast, on, farm_keys), **others)

    for each in reversed(_OPTIONS):
        wrapped = each(wrapped)
    return wrapped

"""Builds several images, and shows the end of each build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from particle_os.errors import ParticleError
from particle_os.fleet import planning, running, summary, views
from particle_os.fleet.build_end import BuildEnd, worst
from particle_os.fleet.order import Order
from particle_os.fleet.running import View
from particle_os.jobs.plan import BuildOptions
from particle_os.report.ci import github
from particle_os.system import publication


class Engine(Protocol):
    """Builds the images of all orders, and adds the end of each build to `ends`."""

    def __call__(
        self,
        orders: Sequence[Order],
        view: View,
        ends: dict[str, BuildEnd],
        *,
        jobs: int | None,
        fail_fast: bool,
    ) -> None: ...


class Fleet:
    """The builds of several images, at most `jobs` of them at a time, by an engine."""

    def __init__(
        self,
        orders: Sequence[Order],
        jobs: int | None,
        *,
        fail_fast: bool,
        engine: Engine = running.run,
    ) -> None:
        self._orders = orders
        self._jobs = jobs
        self._fail_fast = fail_fast
        self._engine = engine
        self._ends: dict[str, BuildEnd] = {}

    @classmethod
    def of(
        cls,
        images: Sequence[tuple[Path, BuildOptions]],
        jobs: int | None,
        *,
        fail_fast: bool,
        engine: Engine | None = None,
    ) -> Fleet:
        """The builds of these images; without an engine, this machine builds.

        Raises the errors of `planning.orders`.
        """
        orders = planning.orders(images)
        return cls(orders, jobs, fail_fast=fail_fast, engine=engine or running.run)

    @property
    def directory(self) -> Path:
        """The output directory of all builds."""
        return self._orders[0].options.output_directory

    def build(self, style: str, *, verbose: bool) -> None:
        """Builds the images; `style` is that of `--progress`."""
        view = views.make_view(style, len(self._orders), verbose=verbose)
        try:
            self._engine(self._orders, view, self._ends, jobs=self._jobs, fail_fast=self._fail_fast)
        finally:
            view.close()

    def abandon(self, error: ParticleError) -> None:
        """Notes the error that has ended the command, for each build without an end of its own."""
        for order in self._orders:
            self._ends.setdefault(order.name, BuildEnd(order, None, error=error))

    @property
    def ends(self) -> list[BuildEnd]:
        """The ends of the builds, in the order of their names."""
        ends = [self._ends.get(order.name) or BuildEnd(order, None) for order in self._orders]
        return sorted(ends, key=lambda end: end.order.name)

    @property
    def exit_code(self) -> int:
        """That of the worst build."""
        return worst(self.ends).exit_code or 0

    def data(self) -> dict[str, Any]:
        """The builds as JSON shows them."""
        return summary.data(self.ends)

    def show(self, console: Console) -> None:
        """Prints the table of the builds."""
        summary.show(self.ends, console)

    def junit(self) -> bytes:
        """The JUnit XML of all builds."""
        return summary.junit(self.ends)

    def markdown(self) -> str:
        """The Markdown of all builds."""
        return summary.markdown(self.ends)

    def annotations(self) -> list[str]:
        """The annotations of a GitHub workflow: one for each boot, and one for each error."""
        found = []
        for end in self.ends:
            verdicts = end.result.boot if end.result else ()
            found += github.workflow_commands(end.order.name, verdicts)
            if not verdicts and end.error is not None:
                found.append(github.failed_build(end.order.name, end.error))
        return found

    def write_page(self) -> None:
        """Writes the page with all images into the output directory."""
        publication.replace(self.directory / summary.PAGE, summary.page(self.ends).encode())

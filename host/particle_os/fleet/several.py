"""Builds several images, and shows the end of each build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from particle_os.fleet import planning, running, summary, views
from particle_os.fleet.build_process import BuildEnd, worst
from particle_os.fleet.order import Order
from particle_os.jobs.plan import BuildOptions
from particle_os.report.ci import github
from particle_os.system import publication


class Fleet:
    """The builds of several images, `jobs` of them at a time."""

    def __init__(self, orders: Sequence[Order], jobs: int, *, fail_fast: bool) -> None:
        self._orders = orders
        self._jobs = jobs
        self._fail_fast = fail_fast
        self._ends: dict[str, BuildEnd] = {}

    @classmethod
    def of(
        cls, images: Sequence[tuple[Path, BuildOptions]], jobs: int | None, *, fail_fast: bool
    ) -> Fleet:
        """The builds of these images. Raises the errors of `planning.orders`."""
        orders = planning.orders(images)
        jobs = jobs or planning.usual_jobs(images[0][1].accel)
        return cls(orders, jobs, fail_fast=fail_fast)

    @property
    def directory(self) -> Path:
        """The output directory of all builds."""
        return self._orders[0].options.output_directory

    def build(self, style: str, *, verbose: bool) -> None:
        """Builds the images; `style` is that of `--progress`."""
        view = views.make_view(style, len(self._orders), verbose=verbose)
        try:
            running.run(self._orders, view, self._ends, jobs=self._jobs, fail_fast=self._fail_fast)
        finally:
            view.close()

    @property
    def ends(self) -> list[BuildEnd]:
        """The ends of the builds, in the order of their names."""
        ends = [self._ends.get(order.name) or BuildEnd(order, None) for order in self._orders]
        return sorted(ends, key=lambda end: end.order.name)

    @property
    def exit_code(self) -> int:
        """That of the worst build."""
        return worst(self.ends)

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

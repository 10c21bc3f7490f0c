"""The figures of `particle-os bench`: as data, as lines for people, and as rows of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from particle_os.errors import printable
from particle_os.records import Record

# The columns of the table in docs/performance.md; times are in seconds.
COLUMNS = (
    "processor", "QEMU", "accelerator", "helper", "base", "first build", "its downloads",
    "cold build", "changed stage", "boot test", "cold / changed",
)  # fmt: skip
PAGE = "docs/performance.md"
# What Markdown takes for markup within a cell.
MARKUP = re.compile(r"[|\\`*_<>\[\]]")


class BuildTime(Record):
    """One build without its boot test: seconds, and the part of apt's downloads in them.

    `download_seconds` are whole seconds by apt's clock, of downloads that may run beside work.
    """

    seconds: float
    download_seconds: int
    download_bytes: int


class Figures(Record):
    """The figures under one accelerator; the first build contains the helper and the base."""

    accelerator: Literal["kvm", "tcg"]
    first_build: BuildTime
    helper_seconds: float
    base_seconds: float
    cold_build: BuildTime
    changed_stage: BuildTime
    boot_test_seconds: float

    @property
    def ratio(self) -> float:
        """The time of a cold build as a multiple of that of a build with a changed stage."""
        return self.cold_build.seconds / max(self.changed_stage.seconds, 0.001)


class Benchmark(Record):
    """The figures of one host, and the reason for each accelerator without figures.

    `version` grows when a field changes its meaning. `processors` are those that may be used.
    `architecture` is that of the images.
    """

    version: Literal[1] = 1
    particle_os: str
    recipe: str
    architecture: str = "amd64"
    processor: str
    processors: int
    qemu: str
    figures: tuple[Figures, ...]
    missing: dict[str, str]

    def rows(self) -> list[str]:
        """The rows of the table in docs/performance.md, one for each accelerator."""
        return [_row(self._cells(figures)) for figures in self.figures]

    def _cells(self, figures: Figures) -> tuple[str, ...]:
        first = figures.first_build
        return (
            ", ".join((self.processor, _count(self.processors), *self._unusual())),
            _release(self.qemu),
            figures.accelerator.upper(),
            _seconds(figures.helper_seconds),
            _seconds(figures.base_seconds),
            _seconds(first.seconds),
            str(first.download_seconds),
            _seconds(figures.cold_build.seconds),
            _seconds(figures.changed_stage.seconds),
            _seconds(figures.boot_test_seconds),
            f"{figures.ratio:.1f}",
        )

    def _unusual(self) -> Iterator[str]:
        if self.architecture != "amd64":
            yield f"images of {self.architecture}"

    def lines(self) -> Iterator[str]:
        """The figures for people, and then the same as a table in Markdown."""
        words = (printable(self.processor), _count(self.processors), printable(self.qemu))
        yield ", ".join((*words, *self._unusual()))
        for figures in self.figures:
            yield ""
            yield from _table(figures)
        for name, reason in self.missing.items():
            yield ""
            yield f"figures with {name.upper()} are missing: {reason}"
        yield ""
        yield f"for the table in {PAGE}:"
        yield _row(COLUMNS)
        yield _row(["---"] * len(COLUMNS))
        yield from self.rows()


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _table(figures: Figures) -> Iterator[str]:
    first = figures.first_build
    yield f"with {figures.accelerator.upper()}, in seconds:"
    for what, seconds, remark in (
        ("first build", _seconds(first.seconds), "with an empty cache"),
        ("  helper VM", _seconds(figures.helper_seconds), "made once"),
        ("  base image", _seconds(figures.base_seconds), "made once"),
        ("  downloads", str(first.download_seconds), f"{first.download_bytes / 1e6:.0f} MB"),
        ("cold build", _seconds(figures.cold_build.seconds), "with helper, base and packages"),
        (
            "changed stage",
            _seconds(figures.changed_stage.seconds),
            f"{figures.ratio:.1f} times as fast",
        ),
        ("boot test", _seconds(figures.boot_test_seconds), ""),
    ):
        yield f"  {what:14}{seconds:>7}  {remark}".rstrip()


def _count(processors: int) -> str:
    return f"{processors} processor{'' if processors == 1 else 's'}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}"


def _release(version: str) -> str:
    """The number in the version of a program, or the version itself."""
    found = re.search(r"\d+(?:\.\d+)+", version)
    return found[0] if found else version


def _cell(text: str) -> str:
    """Text in which nothing is markup."""
    return MARKUP.sub(lambda found: f"\\{found[0]}", printable(text, 200))

"""The commands of `cache`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import click
from particle_agent.contract.values import bytes_of

from particle_os.cli.command import OutputStyle, with_output
from particle_os.cli.usage.commands import CommandGroup
from particle_os.errors import EXIT_INFRASTRUCTURE, printable
from particle_os.jobs import cache
from particle_os.report.table import human_bytes
from particle_os.system.workspace import cache_directory

# Every recipe may use an entry that is no checkpoint.
SHARED = "(shared)"


def _cache_size(context: click.Context, parameter: click.Parameter, value: str) -> int:
    if value == "0":
        return 0
    if not re.fullmatch(r"[1-9][0-9]{0,6}[MGmg]", value):
        raise click.BadParameter("expected a size such as 20G or 500M, or 0")
    return bytes_of(value.upper())


@click.group("cache", cls=CommandGroup)
def cache_group() -> None:
    """List, clear and check the files that earlier builds left for later builds."""


@cache_group.command("list")
@with_output
def cache_list_command(output: OutputStyle) -> None:
    """List the entries of the cache, with the recipe whose build made a checkpoint."""
    found = cache.entries(cache_directory())
    output.show([_cache_row(entry) for entry in found], _listed(found))


def _listed(entries: Sequence[cache.CacheEntry]) -> Iterator[str]:
    width = max([len("recipe"), *(len(entry.recipe or SHARED) for entry in entries)])
    yield f"{'kind':<10}  {'size':>9}  {'unused for':>10}  {'recipe':<{width}}  name"
    for entry in entries:
        size, hours = human_bytes(entry.size), f"{entry.age() / 3600:.1f} h"
        name = f"{entry.name} {entry.label}".strip()
        recipe = entry.recipe or SHARED
        row = f"{entry.kind:<10}  {size:>9}  {hours:>10}  {recipe:<{width}}  {name}"
        yield printable(row)
    yield f"total       {human_bytes(sum(e.size for e in entries)):>9}"


def _cache_row(entry: cache.CacheEntry) -> dict[str, object]:
    return {
        "kind": entry.kind, "name": entry.name, "label": entry.label, "bytes": entry.size,
        "used": entry.used, "recipe": entry.recipe,
    }  # fmt: skip


@cache_group.command("prune")
@click.option("--size", callback=_cache_size, default=f"{cache.LIMIT_BYTES >> 30}G",
              show_default=True, metavar="SIZE",
              help="Remove the entries unused for longest until SIZE is left; 0: all.")  # fmt: skip
@click.option("--max-age", type=click.IntRange(0), metavar="HOURS",
              help="Also remove entries that were not used for HOURS.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the entries and remove none.")
@with_output
def cache_prune_command(output: OutputStyle, size: int, max_age: int | None, dry_run: bool) -> None:
    """Remove entries that were not used for long, but none that a running build uses."""
    seconds = None if max_age is None else max_age * 3600
    removed = cache.prune(cache_directory(), limit=size, max_age=seconds, dry_run=dry_run)
    freed = human_bytes(sum(entry.size for entry in removed))
    done = f"{len(removed)} removed, {freed} freed"
    lines = [*_listed(removed), "nothing was removed"] if dry_run else [done] * (not output.quiet)
    output.show([_cache_row(entry) for entry in removed], lines)


@cache_group.command("verify")
@with_output
def cache_verify_command(output: OutputStyle) -> int:
    """Check the content of the cache: names damaged entries and then exits with 5."""
    found = cache.damaged(cache_directory())
    lines = [f"damaged: {printable(' '.join(map(str, entry.paths)))}" for entry in found]
    whole = [] if found or output.quiet else ["all whole"]
    output.show([_cache_row(entry) for entry in found], [*lines, *whole])
    return EXIT_INFRASTRUCTURE if found else 0

"""Makes the orders for several recipes, and for the images of their matrices."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path

from particle_os.architecture import ARCHITECTURES, BuildArchitecture
from particle_os.errors import InvalidDocument, UsageError
from particle_os.fleet.order import Order
from particle_os.jobs import checkpoints
from particle_os.jobs.plan import BuildOptions
from particle_os.recipe import loading
from particle_os.report.results import RESULT_LIMIT
from particle_os.system.regular_file import read_regular
from particle_os.system.workspace import cache_directory
from particle_os.vm import accel


def orders(images: Sequence[tuple[Path, BuildOptions]]) -> list[Order]:
    """An order for each image, the longest ones first.

    Raises InvalidDocument with the problems of all recipes, and UsageError when two images would
    have the same name.
    """
    found: list[Order] = []
    invalid: list[InvalidDocument] = []
    for recipe, options in images:
        try:
            found.append(_order(recipe, options))
        except InvalidDocument as error:
            invalid.append(error)
    InvalidDocument.raise_all(invalid)
    _check_names(found)
    return longest_first(found)


def _order(recipe: Path, options: BuildOptions) -> Order:
    loaded = loading.load(
        recipe,
        options.variables,
        base=options.base,
        allow_outside=options.allow_outside,
        architecture=options.architecture,
    )
    reference = options.base or loaded.recipe.base_image
    root = [reference, loaded.recipe.architecture]
    stem = checkpoints.keys(root, loaded.recipe.name, loaded.recipe.stages[:1])[-1]
    name = loaded.recipe.name
    seconds = last_seconds(name, options.output_directory)
    architecture = loaded.recipe.architecture
    return Order(name, recipe, options, stem, seconds, architecture, loaded.hidden)


def _check_names(found: Sequence[Order]) -> None:
    by_name = defaultdict[str, list[Order]](list)
    for order in found:
        by_name[order.name].append(order)
    for name, same in by_name.items():
        if len(same) == 1:
            continue
        one, other = same[:2]
        if one.recipe == other.recipe and one.options.variables != other.options.variables:
            differing = [
                n for n, text in one.options.variables.items() if other.options.variables[n] != text
            ]
            hint = f"Name the variable in it: 'name: {name}-${{{differing[0]}}}'."
            raise UsageError(f"{one.recipe}: {len(same)} images have the name '{name}'", hint=hint)
        raise UsageError(
            f"'{name}' is the name of an image of {one.recipe} and of {other.recipe}",
            hint="Each image needs a name of its own; the files in the output begin with it.",
        )


def longest_first(found: Iterable[Order]) -> list[Order]:
    """The orders with the longest builds first, and before them those of unknown length.

    The end of all builds comes soonest when the short ones fill the gaps.
    """
    return sorted(found, key=lambda order: -inf if order.seconds is None else -order.seconds)


def spread(found: Iterable[Order], jobs: int) -> list[Order]:
    """The same orders; the second one of a stem comes `jobs` places after the first one.

    The images of one stem wait for its first stage, which the first one of them makes. Other images
    fill the time, if there are some.
    """
    waiting = list(found)
    placed: list[Order] = []
    first: dict[str, int] = {}
    while waiting:
        may_begin = (o for o in waiting if len(placed) - first.get(o.stem, -jobs) >= jobs)
        order = next(may_begin, waiting[0])
        first.setdefault(order.stem, len(placed))
        waiting.remove(order)
        placed.append(order)
    return placed


def last_seconds(name: str, output: Path) -> float | None:
    """The seconds that the last build of an image took; None when its result is gone."""
    try:
        data = read_regular(output / f"{name}.result.json", RESULT_LIMIT, follow=False)
        phases = json.loads(data)["phases"]
        return float(sum(phases.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def usual_jobs(orders: Iterable[Order]) -> int:
    """The number of images that are built at the same time unless the user says otherwise.

    An emulated machine keeps more than one processor busy.
    """
    processors = len(os.sched_getaffinity(0))
    machines = {(order.options.accel, order.architecture) for order in orders}
    fast = all(_runs_under_kvm(*machine) for machine in machines)
    return max(1, processors if fast else processors // 2)


def _runs_under_kvm(mode: accel.Mode, architecture: BuildArchitecture) -> bool:
    """Whether a build ends, or runs under KVM; a KVM that no build has tried does not count."""
    if mode != "auto":
        return mode == "kvm"
    memory_file = cache_directory() / accel.KVM_MEMORY
    return accel.usable(ARCHITECTURES[architecture], memory_file) or False

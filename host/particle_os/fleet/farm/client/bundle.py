"""The files of a recipe, in a parcel for a worker."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from particle_os.errors import ParticleError, UsageError
from particle_os.fleet.farm import parcel
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.order import Order, arguments
from particle_os.jobs import checkpoints
from particle_os.recipe import loading
from particle_os.recipe.files.directories import walk
from particle_os.recipe.model import LoadedRecipe
from particle_os.system.workspace import failed_call

# The options that a worker sets itself. It may read what the parcel has from everywhere.
OWN = (
    "output_directory", "cache_from", "cache_keys", "cache_to", "cache_sign", "allow_env",
    "keep_on_failure", "allow_outside",
)  # fmt: skip
# The bases that are files, relative to the recipe.
OF_FILES = ("tar:", "oci:", "oci-archive:", "docker-archive:", "ostree:")


@dataclass(frozen=True)
class Bundle:
    """The files of one image's recipe in `text`, a parcel; `recipe` is its path in the parcel."""

    recipe: str
    text: str

    def assignment(self, order: Order, key: str, *, lines: bool) -> Assignment:
        """The assignment that builds the image of an order from these files."""
        words = arguments(order.options, without=OWN)
        return Assignment(
            name=order.name, key=key, parcel=self.text, recipe=self.recipe, arguments=words,
            lines=lines, variables=order.options.variables,
        )  # fmt: skip


def of_order(order: Order, work: Path) -> Bundle:
    """The files that the build of an order reads; `work` is a directory for temporary files.

    Raises UsageError for a recipe that cannot travel: with secrets, or with files that are large or
    outside of its directory.
    """
    loaded = _loaded(order, order.recipe)
    _check(order, loaded)
    top = loaded.path.parent
    try:
        text = parcel.pack(dict(_files(loaded, top)).items())
    except parcel.TooLarge as error:
        raise UsageError(
            f"{order.recipe}: the files of the recipe are too large to travel: {error}",
            hint=f"{parcel.LIMIT >> 20} MiB may travel with a build. Let a stage download large "
            "files, and take a large base from a registry.",
        ) from error
    except OSError as error:
        raise failed_call(error) from error
    found = Bundle(loaded.path.name, text)
    _check_complete(order, loaded, found, work)
    return found


def _loaded(order: Order, recipe: Path) -> LoadedRecipe:
    options = order.options
    return loading.load(
        recipe,
        options.variables,
        base=options.base,
        allow_outside=options.allow_outside,
        architecture=options.architecture,
    )


def _check(order: Order, loaded: LoadedRecipe) -> None:
    if any(stage.secrets for stage in loaded.recipe.stages):
        raise UsageError(
            f"{order.recipe}: a stage takes secrets, which do not travel to a farm",
            hint="Build this image on its own machine: without --on, or with '--on local:1'.",
        )
    if order.options.base is not None and order.options.base.startswith(OF_FILES):
        raise UsageError(
            f"--base {order.options.base} is a file of this machine, which a farm does not have",
            hint="Name it as base-image in the recipe, or take a base from a registry.",
        )


def _files(loaded: LoadedRecipe, top: Path) -> Iterator[tuple[str, Path]]:
    """The files and directories of a recipe, by their names relative to `top`."""
    named = [*loaded.files, *(a.path for several in loaded.attachments for a in several)]
    test, recipe = loaded.recipe.boot_test, loaded.recipe
    named += [top / name for name in (test.goss, recipe.base_image_key) if name is not None]
    kind, _, rest = recipe.base_image.partition(":")
    if f"{kind}:" in OF_FILES:
        # An archive or a directory can be followed by a reference to one of its images.
        ends = (rest, rest.rpartition(":")[0], rest.rpartition("#")[0])
        named += [top / end for end in ends if end and (top / end).exists()][:1]
    for path in named:
        yield from _tree(path, _inside(path, top))


def _inside(path: Path, top: Path) -> str:
    """The name of a file relative to `top`. Raises UsageError for one outside."""
    name = os.path.relpath(path, top)
    if name.startswith(".."):
        raise UsageError(
            f"{path} lies outside of the recipe's directory, so it does not travel to a farm",
            hint=f"Put it into {top}.",
        )
    return name


def _tree(path: Path, name: str) -> Iterator[tuple[str, Path]]:
    """A file, or a directory with its content. A link that the recipe names stands for its target.

    Raises OSError.
    """
    real = path.resolve()
    yield name, real
    if real.is_dir():
        for inner, _ in walk(real):
            yield f"{name}/{inner}", real / inner


def _check_complete(order: Order, loaded: LoadedRecipe, bundle: Bundle, work: Path) -> None:
    """Raises UsageError unless the recipe in the parcel makes the same image as the recipe here."""
    with tempfile.TemporaryDirectory(dir=work) as place:
        parcel.unpack(bundle.text, Path(place))
        try:
            there = _loaded(order, Path(place) / bundle.recipe)
            if _keys(there) == _keys(loaded):
                return
            why = "its files have other contents there"
        except ParticleError as error:
            why = error.brief
    raise UsageError(
        f"{order.recipe} cannot travel to a farm: {why}",
        hint="Build it without --on, and report this: the farm should know all files of a recipe.",
    )


def _keys(loaded: LoadedRecipe) -> tuple[object, ...]:
    """Everything in a recipe that determines the image and its test."""
    stages = checkpoints.keys([], loaded.recipe.name, loaded.recipe.stages)
    return stages, loaded.recipe.boot_test, loaded.goss, loaded.base_image_key

"""Loads recipes: reads YAML and returns a typed `Recipe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from particle_os.documents import validation
from particle_os.documents.document import Node, Source
from particle_os.documents.words import did_you_mean, nearest
from particle_os.errors import InvalidDocument, Problem, UsageError
from particle_os.recipe import foreign_recipe
from particle_os.recipe.model import BootTest, LoadedRecipe, Recipe, stage_kinds
from particle_os.recipe.names import vocabulary
from particle_os.recipe.parameters import matrix
from particle_os.recipe.passes import legacy
from particle_os.recipe.passes.reading import Pass, Reading
from particle_os.recipe.passes.structure import check_length, read_goss
from particle_os.recipe.passes.table import PASSES, advised, run

CONFIDENTIAL = "(confidential)"
DISK_STAGE = "qemu"
INCLUDED = "included files"
# These passes examine parts of a recipe that a single stage does not have.
OF_WHOLE_RECIPES = {INCLUDED, "order of the stages", "firmware", "length of the checks"}


def read(path: Path) -> Source:
    """The document of a recipe, from which the other functions make each of its images.

    Raises InvalidDocument for a document that is no YAML, or no recipe of particle-os.
    """
    return foreign_recipe.load(path)


def load(
    recipe: Path | Source,
    given: Mapping[str, str] | None = None,
    *,
    base: str | None = None,
    allow_outside: bool = False,
    architecture: str | None = None,
) -> LoadedRecipe:
    """Reads and validates a recipe and the files that it includes.

    `given` are values for the variables of the recipe. `base` replaces its base image, and
    `architecture` its architecture. With `allow_outside`, the recipe may name files outside of its
    directory. Raises InvalidDocument with all problems, and UsageError for a given variable that is
    not declared.
    """
    reading = _begin(recipe, given, base, allow_outside, architecture)
    run(reading, PASSES)
    return _loaded(reading)


def resolved(
    path: Path,
    given: Mapping[str, str] | None = None,
    *,
    base: str | None = None,
    allow_outside: bool = False,
    architecture: str | None = None,
) -> dict[str, Any]:
    """The recipe as plain data: with all variables and included stages put in.

    It is a recipe again, except that secrets are replaced, and that the paths of files
    stay as they are written. Raises the errors of `load`.
    """
    reading = _begin(path, given, base, allow_outside, architecture)
    run(reading, PASSES)
    _loaded(reading)
    for node in reading.source.root.walk():
        if node.confidential and not node.public:
            node.value = CONFIDENTIAL
        elif isinstance(node.value, str):
            node.value = node.value.replace("${", "$${")
    data: dict[str, Any] = reading.source.data
    return data


def images(
    recipe: Path | Source, given: Mapping[str, str] | None = None, architecture: str | None = None
) -> tuple[dict[str, str], ...]:
    """The variables of each image that a recipe makes: `given`, and values of its matrix.

    Without a matrix, it is one image. `architecture` chooses images as `given` does, if it is a
    variable of the matrix. Raises InvalidDocument for a document that is no YAML, and
    UsageError when no image has the `given` values. `load` finds all other problems.
    """
    source = _document(recipe)
    wanted = matrix.for_architecture(source, given or {}, architecture)
    found = matrix.take(source)
    return tuple({**wanted, **values} for values in found.chosen(wanted))


def images_of(
    paths: Sequence[Path], given: Mapping[str, str], architecture: str | None = None
) -> list[tuple[Path, dict[str, str]]]:
    """Each image of several recipes: the file, and its variables. Raises as `images` does."""
    found: list[tuple[Path, dict[str, str]]] = []
    invalid: list[InvalidDocument] = []
    for path in paths:
        try:
            found += [(path, values) for values in images(path, given, architecture)]
        except InvalidDocument as error:
            invalid.append(error)
    InvalidDocument.raise_all(invalid)
    return found


def load_stage(
    kind: str,
    path: Path,
    given: Mapping[str, str] | None = None,
    *,
    base: str,
    allow_outside: bool,
    architecture: str | None = None,
) -> LoadedRecipe:
    """Reads and validates the options of one stage, as a recipe with this stage only.

    Raises the errors of `load`, and UsageError for a stage that cannot run alone.
    """
    kind = kind.removeprefix(legacy.PREFIX)
    _check_runs_alone(kind, path)
    reading = _begin(path, given, base, allow_outside)
    left = OF_WHOLE_RECIPES if kind in stage_kinds() else OF_WHOLE_RECIPES - {INCLUDED}
    variables, *others, needs, more_needs = (each for each in PASSES if each.name not in left)
    wrap = partial(_wrap, kind, architecture or Recipe.architecture)
    run(reading, (variables, Pass("a recipe around the stage", wrap), *others))
    if reading.source.left_out and not reading.source.data["stages"]:
        raise _left_out(reading.source.notes)
    wrong = bool(reading.source.problems)
    run(reading, [needs, more_needs])
    if reading.source.problems and not wrong:
        hint = "use a base that has it; 'stage run TYPE --output FILE.tar' makes one"
        source = reading.source
        source.problems = [replace(p, hint=hint) for p in source.problems]
        raise source.invalid()
    loaded = _loaded(reading)
    if not loaded.recipe.stages:
        raise _left_out(loaded.notes)
    if (count := len(loaded.recipe.stages)) > 1:
        hint = "Run one of them, or build a recipe with it."
        raise UsageError(f"'{kind}' is {count} stages, and this command runs one", hint=hint)
    return loaded


def _left_out(notes: Sequence[Problem]) -> UsageError:
    """The error for a single stage whose condition does not hold."""
    note = next(note for note in notes if note.code == "left-out")
    return UsageError(str(note), hint="Set the variable with --set, or remove 'when'.")


def _document(recipe: Path | Source) -> Source:
    """A document of its own, because the passes change it."""
    return recipe.fresh() if isinstance(recipe, Source) else read(recipe)


def _begin(
    recipe: Path | Source,
    given: Mapping[str, str] | None,
    base: str | None,
    allow_outside: bool,
    architecture: str | None = None,
) -> Reading:
    source = _document(recipe)
    inside = None if allow_outside else source.path.parent
    wanted = matrix.for_architecture(source, given or {}, architecture)
    return Reading(source, matrix.variables_of(source, wanted), base, inside)


def _loaded(reading: Reading) -> LoadedRecipe:
    """The recipe of a reading. Raises InvalidDocument when the passes have found problems."""
    if reading.source.problems:
        raise advised(reading.source)
    assert reading.loaded is not None
    return replace(reading.loaded, notes=tuple(reading.source.notes), hidden=reading.hidden)


def _check_runs_alone(kind: str, path: Path) -> None:
    found = vocabulary(Source(path)).names(("stages", "type"))
    known = [name for name in found if name != DISK_STAGE]
    if kind not in known:
        hint = did_you_mean(nearest(kind, known), known)
        if kind == DISK_STAGE:
            hint = "'particle-os build' runs it, with a recipe and --base."
        raise UsageError(f"there is no stage '{kind}' that runs alone", hint=hint)


def _wrap(kind: str, architecture: str, reading: Reading) -> None:
    """Wraps a document with the options of one stage in a recipe."""
    source = reading.source
    options = source.root
    if not isinstance(options.value, dict):
        source.problem(options.mark, "bad-type", "expected the options of the stage, as a mapping")
        raise source.invalid()
    stated = options.value.setdefault("type", Node(kind, options.mark))
    if stated.value not in (kind, legacy.PREFIX + kind):
        source.problem(stated.mark, "bad-value", f"type: expected '{kind}', or nothing")
        raise source.invalid()
    recipe = {
        "name": Node(kind, options.mark),
        "architecture": Node(architecture, options.mark),
        "stages": Node([options], options.mark),
    }
    source.root = Node(recipe, options.mark)


def load_boot_test(path: Path | None) -> tuple[BootTest, bytes | None]:
    """Reads a file with the content of `boot-test` in a recipe; without a file, all is default.

    Returns it with the content of the file of goss tests that it names, which must be in its own
    directory. Raises InvalidDocument with all problems.
    """
    if path is None:
        return BootTest(), None
    source = foreign_recipe.load(path)
    check_length(source, ("checks",))
    goss = read_goss(source, ("goss",), source.path.parent)
    try:
        return validation.validate(source, BootTest, vocabulary(source, ("boot-test",))), goss
    except InvalidDocument:
        raise advised(source) from None

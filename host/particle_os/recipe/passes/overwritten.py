"""Finds the files of a recipe that the image would lose, because a later stage replaces them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from particle_agent.stages import RecipeStage
from particle_agent.stages.contents.cleanup import Cleanup
from particle_agent.stages.contents.files import EMPTIED, KERNELS, Directory, File, Files, Link

from particle_os.documents import validation
from particle_os.documents.document import Key, Source
from particle_os.recipe.files.directories import NAMED, walk
from particle_os.recipe.files.inside import outside
from particle_os.recipe.passes.reading import Reading
from particle_os.recipe.passes.structure import may_apply

# The stages of a build, each with its place in the recipe.
PlacedStages = Sequence[tuple[int, RecipeStage]]
OPTIONS: tuple[tuple[str, type], ...] = (
    ("directories", Directory),
    ("links", Link),
    ("files", File),
)


def check(reading: Reading) -> None:
    """Notes each file that a stage `files` writes and a later stage replaces or removes."""
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    stages = [
        (i, s)
        for i, s in enumerate(recipe.stages)
        if s.applies(recipe.architecture) and may_apply(_plain(source, i), recipe.architecture)
    ]
    for position in range(len(stages)):
        _check_stage(source, stages, position, reading.inside)


def _check_stage(source: Source, stages: PlacedStages, position: int, inside: Path | None) -> None:
    index, stage = stages[position]
    directory = source.mark(("stages", index)).path.parent
    counts, removed = Counter[Key](), Counter[Key]()
    made, links, files = (_items(source, index, stage, *each) for each in OPTIONS)
    for key, path, copied in _written(made, links, files, directory, inside):
        found = _lost(path) if copied else None
        found = found or _replaced(path, stages, position, source, copied=copied)
        if found is not None:
            counts[key] += 1
            if counts[key] <= NAMED:
                source.problem(source.mark(("stages", index, *key)), "overwritten", *found)
        elif copied and any(_cleans(other, path) for _, other in stages[position + 1 :]):
            removed[key] += 1
    for key, count in counts.items():
        if count > NAMED:
            message = f"{count - NAMED} more files would be lost"
            source.problem(source.mark(("stages", index, *key)), "overwritten", message)
    for key, count in removed.items():
        message = f"the stage 'cleanup' removes {count} of the copied files"
        source.note(source.mark(("stages", index, *key)), "overwritten", message)


def _cleans(stage: RecipeStage, path: str) -> bool:
    """Whether the stage is a cleanup that removes a file, as it may be meant for copied ones."""
    return isinstance(stage, Cleanup) and stage.replaces(path, ()) is not None


def _plain(source: Source, index: int) -> object:
    node = source.node(("stages", index))
    return node.plain() if node is not None else None


def _items(
    source: Source, index: int, stage: RecipeStage, option: str, kind: type
) -> Iterator[tuple[int, Any]]:
    """The items of an option of a stage `files`; of a wrong stage, those without an own fault."""
    if isinstance(stage, Files):
        yield from enumerate(getattr(stage, option))
        return
    named, items = source.node(("stages", index, "type")), source.node(("stages", index, option))
    if named is None or named.value != Files.type or items is None:
        return
    for number, item in enumerate(items.value if isinstance(items.value, list) else ()):
        whole = not any(inner.unknown for inner in item.walk())
        found = validation.valid(kind, item.plain()) if whole else None
        if found is not None and _lost(found.path) is None:
            yield number, found


def _written(
    directories: Iterable[tuple[int, Directory]],
    links: Iterable[tuple[int, Link]],
    files: Iterable[tuple[int, File]],
    directory: Path,
    inside: Path | None,
) -> Iterator[tuple[Key, str, bool]]:
    """Each path that a stage writes, its place in the options, and whether a copy brings it."""
    for number, made in directories:
        yield ("directories", number, "path"), made.path, False
    for number, link in links:
        yield ("links", number, "path"), link.path, False
    for number, file in files:
        names = [] if file.source is None else _names(directory / file.source, inside)
        for name in names:
            yield ("files", number, "source"), str(PurePosixPath(file.path, name)), True
        if not names:
            yield ("files", number, "path"), file.path, False


def _names(directory: Path, inside: Path | None) -> list[str]:
    """The paths of the files and links in a directory, relative to it; none for other files."""
    # A later pass notes a source that cannot be read.
    with suppress(OSError, ValueError):
        if not outside(directory, inside):
            return [name for name, is_directory in walk(directory) if not is_directory]
    return []


def _instead(source: Source, stages: PlacedStages, position: int, path: str) -> str | None:
    """The advice for a file that the stage at a position replaces; None if the file stays.

    A wrong stage replaces the files of all its variants.
    """
    index, stage = stages[position]
    kind, loader = (source.node(("stages", index, key)) for key in ("type", "boot-loader"))
    if kind is None or kind.value == stage.type:
        return stage.replaces(path, [each for _, each in stages[:position]])
    given = {"type": kind.value} | ({"boot-loader": loader.value} if loader else {})
    found = validation.valid(RecipeStage, given)
    return None if found is None or isinstance(found, Cleanup) else found.replaces(path, ())


def _lost(path: str) -> tuple[str, str] | None:
    """The message and hint for a copied file that the running system would not show."""
    for top in (*KERNELS, *EMPTIED):
        if path.startswith(f"{top}/"):
            hint = f"leave it out of the copied directory: {top} is filled when the system runs"
            return f"{path} would be lost", hint
    return None


def _replaced(
    path: str, stages: PlacedStages, position: int, source: Source, *, copied: bool
) -> tuple[str, str] | None:
    """The message and hint for a file that a stage after a position replaces or removes."""
    for later in range(position + 1, len(stages)):
        index, stage = stages[later]
        if copied and _cleans(stage, path):
            continue
        if (instead := _instead(source, stages, later, path)) is not None:
            line = source.line(("stages", index))
            named = source.node(("stages", index, "type"))
            kind = stage.type if named is None else named.value
            message = f"{path} would be lost: the stage '{kind}' at line {line} does not keep it"
            return message, instead
    return None

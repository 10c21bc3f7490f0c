"""Finds the files of a recipe that the image would lose, because a later stage replaces them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from particle_agent.stages import RecipeStage
from particle_agent.stages.contents.files import EMPTIED, KERNELS, Directory, File, Files, Link

from particle_os.documents import validation
from particle_os.documents.document import Key, Source
from particle_os.recipe.files.directories import NAMED, walk
from particle_os.recipe.files.inside import outside
from particle_os.recipe.passes.reading import Reading
from particle_os.recipe.passes.structure import may_apply

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
    for position, (index, stage) in enumerate(stages):
        directory = source.mark(("stages", index)).path.parent
        later = stages[position + 1 :]
        counts = Counter[Key]()
        made, links, files = (_items(source, index, stage, *each) for each in OPTIONS)
        for key, path, copied in _written(made, links, files, directory, reading.inside):
            found = _lost(path) if copied else None
            found = found or _replaced(path, later, reading)
            if found is not None:
                message, hint = found
                mark = source.mark(("stages", index, *key))
                counts[key] += 1
                if counts[key] <= NAMED:
                    source.problem(mark, "overwritten", message, hint)
        for key, count in counts.items():
            if count > NAMED:
                message = f"{count - NAMED} more files would be lost"
                source.problem(source.mark(("stages", index, *key)), "overwritten", message)


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


def _rewrites(source: Source, index: int, stage: RecipeStage) -> Iterable[tuple[str, str]]:
    """The files that the stage rewrites; of a wrong stage, those of all its variants."""
    kind, loader = (source.node(("stages", index, key)) for key in ("type", "boot-loader"))
    if kind is None or kind.value == stage.type:
        return stage.rewrites()
    given = {"type": kind.value} | ({"boot-loader": loader.value} if loader else {})
    found = validation.valid(RecipeStage, given)
    return () if found is None else found.rewrites()


def _lost(path: str) -> tuple[str, str] | None:
    """The message and hint for a copied file that the running system would not show."""
    for top in (*KERNELS, *EMPTIED):
        if path.startswith(f"{top}/"):
            hint = f"leave it out of the copied directory: {top} is filled when the system runs"
            return f"{path} would be lost", hint
    return None


def _replaced(
    path: str, later: list[tuple[int, RecipeStage]], reading: Reading
) -> tuple[str, str] | None:
    """The message and hint for a file that one of the later stages replaces or removes."""
    for index, stage in later:
        for pattern, instead in _rewrites(reading.source, index, stage):
            if fnmatchcase(path, pattern):
                line = reading.source.line(("stages", index))
                named = reading.source.node(("stages", index, "type"))
                kind = stage.type if named is None else named.value
                message = f"{path} would be lost: the stage '{kind}' at line {line} replaces it"
                return message, instead
    return None

"""Finds the files of a recipe that the image would lose, because a later stage replaces them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from particle_agent.stages import RecipeStage
from particle_agent.stages.contents.files import EMPTIED, KERNELS, Files

from particle_os.documents.document import Key
from particle_os.recipe.files.directories import NAMED, walk
from particle_os.recipe.files.inside import outside
from particle_os.recipe.passes.reading import Reading


def check(reading: Reading) -> None:
    """Notes each file that a stage `files` writes and a later stage replaces or removes."""
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    stages = [(i, s) for i, s in enumerate(recipe.stages) if s.applies(recipe.architecture)]
    for position, (index, stage) in enumerate(stages):
        if not isinstance(stage, Files):
            continue
        directory = source.mark(("stages", index)).path.parent
        later = stages[position + 1 :]
        counts = Counter[Key]()
        for key, path, copied in _written(stage, directory, reading.inside):
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


def _written(stage: Files, directory: Path, inside: Path | None) -> Iterator[tuple[Key, str, bool]]:
    """Each path that the stage writes, its place in the options, and whether a copy brings it."""
    for number, link in enumerate(stage.links):
        yield ("links", number, "path"), link.path, False
    for number, file in enumerate(stage.files):
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
        for pattern, instead in stage.rewrites():
            if fnmatchcase(path, pattern):
                line = reading.source.line(("stages", index))
                message = (
                    f"{path} would be lost: the stage '{stage.type}' at line {line} replaces it"
                )
                return message, instead
    return None

"""Keeps the files that a recipe names inside the recipe's directory.

A recipe can come from a stranger, for example with a change that CI builds. The files that it names
go into the image, so they must not be any files of the user.
"""

from __future__ import annotations

from pathlib import Path

OUTSIDE = "lies outside of the recipe's directory, {directory}; --allow-outside permits that"


def outside(path: Path, directory: Path | None) -> str | None:
    """The fault of a path that leads, through links too, out of `directory`; None without a fault.

    With `directory` None every path is permitted. Raises OSError for a loop of links.
    """
    if directory is None:
        return None
    try:
        real = path.resolve()
    except RuntimeError as error:
        raise OSError(0, "is a loop of links") from error
    inside = directory.resolve()
    return None if real.is_relative_to(inside) else OUTSIDE.format(directory=inside)

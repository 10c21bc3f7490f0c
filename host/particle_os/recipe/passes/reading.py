"""The state of reading a recipe, which the passes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from particle_os.documents.document import Key, Source
from particle_os.recipe.model import LoadedRecipe, Recipe
from particle_os.recipe.parameters.variables import Variables


@dataclass
class Reading:
    """A document on its way to a recipe; the passes note problems in `source`.

    `base` replaces the base image of the document. `recipe` is the content of the document, with
    placeholders for wrong stages. It is None until the types are checked, and stays None for a
    document without a usable list of stages. `loaded` is the recipe without the stages for other
    architectures. `hidden` names the variables with parts of confidential values.
    """

    source: Source
    variables: Variables
    base: str | None = None
    # The files that the recipe names must be in this directory; None permits every place.
    inside: Path | None = None
    # The public key that must have signed the commit of the base image.
    base_image_key: bytes | None = None
    # The content of the goss file of the boot test.
    goss: bytes | None = None
    hidden: frozenset[str] = frozenset()
    recipe: Recipe | None = None
    loaded: LoadedRecipe | None = None

    def complain(self, key: Key, code: str, message: str) -> None:
        """Notes a problem of the value at `key`."""
        self.source.problem(self.source.mark(key), code, message)


class Pass(NamedTuple):
    """One pass over a document; one with `of_recipe` is skipped while the stages are unknown."""

    name: str
    run: Callable[[Reading], None]
    of_recipe: bool = False

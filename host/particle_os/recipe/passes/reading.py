"""A document on its way to a recipe: what the passes read, and what they find."""

from __future__ import annotations

from dataclasses import dataclass

from particle_os.documents.document import Key, Source
from particle_os.recipe.model import LoadedRecipe, Recipe
from particle_os.recipe.variables import Variables


@dataclass
class Reading:
    """The state between two passes; what is wrong is noted in `source`.

    `base` is what the image starts from instead of what the document says. `recipe` is what the
    document says. Stand-ins take the places of stages that are wrong. It is None before the
    document is understood, and where nothing can be said of its stages. `loaded` is the recipe
    without the stages for other architectures.
    """

    source: Source
    variables: Variables
    base: str | None = None
    recipe: Recipe | None = None
    loaded: LoadedRecipe | None = None

    def complain(self, key: Key, code: str, message: str) -> None:
        """Notes what is wrong with the value at `key`."""
        self.source.problem(self.source.mark(key), code, message)

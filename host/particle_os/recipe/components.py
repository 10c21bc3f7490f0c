"""Notes packages of components of Debian that the sources of an image do not have."""

from __future__ import annotations

import re

from particle_agent.contract.needs import Need
from particle_agent.contract.packages import components_of
from particle_agent.stages import RecipeStage
from particle_agent.stages.contents.files import Files
from particle_agent.stages.software.apt import Apt
from particle_agent.stages.software.sources import Sources

from particle_os.documents.document import Source
from particle_os.recipe import dependencies
from particle_os.recipe.model import Recipe

# Stands for all components, and a need that no known stage brings for certain.
ANY = ("any",)
ANYTHING = Need(what="package sources", message="", hint="")


def check(source: Source, recipe: Recipe, base: str) -> None:
    """Notes packages of components that no stage before adds to the sources of a Debian base."""
    added = set[str]()
    released = dependencies.is_released(base)
    for number, stage in enumerate(recipe.stages if released else ()):
        if not stage.applies(recipe.architecture):
            continue
        if isinstance(stage, Sources):
            added.update(stage.components, *(each.components for each in stage.repositories))
        elif not isinstance(stage, Apt) and _may_bring_sources(stage):
            added.update(ANY)
        for index, name in enumerate(stage.packages if isinstance(stage, Apt) else ()):
            wanted = components_of(re.split("[:=/]", name)[0])
            if wanted and not added & {*wanted, *ANY}:
                missing = ", ".join(wanted)
                message = (
                    f"'{name}' seems to be in {' or '.join(wanted)}, which the base does not have: "
                    f"put '- {{type: sources, components: [{missing}]}}' before this stage"
                )
                mark = source.mark(("stages", number, "packages", index))
                source.note(mark, "missing-component", message)


def _may_bring_sources(stage: RecipeStage) -> bool:
    if isinstance(stage, Files):
        return stage.may_write_below("/etc/apt")
    # Scripts may write any file, and a wrong stage stands for any.
    return stage.may_bring(ANYTHING)

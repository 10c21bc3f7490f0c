"""All passes over the document of a recipe, in their order."""

from __future__ import annotations

from collections.abc import Iterable

from particle_os.documents.document import Source
from particle_os.errors import InvalidDocument
from particle_os.recipe import deployment, foreign_packages, machines
from particle_os.recipe.passes import (
    advice,
    overwritten,
    remarks,
    stages,
    unit_names,
)
from particle_os.recipe.passes.of_document import OF_DOCUMENT
from particle_os.recipe.passes.reading import Pass, Reading

PASSES = (
    *OF_DOCUMENT,
    Pass("types", stages.understand),
    Pass("names of secrets", stages.check_secrets, of_recipe=True),
    Pass("files of secrets", stages.look_for_secrets, of_recipe=True),
    Pass("commands", remarks.check_commands, of_recipe=True),
    Pass("components", remarks.check_components, of_recipe=True),
    Pass("keys", remarks.check_keys, of_recipe=True),
    Pass("names of units", unit_names.check, of_recipe=True),
    Pass("files that a later stage writes", overwritten.check, of_recipe=True),
    Pass("the disk of a commit", deployment.check, of_recipe=True),
    Pass("architecture and files", stages.attach_files, of_recipe=True),
    Pass("the parent of a commit", deployment.check_parent, of_recipe=True),
    Pass("files of stages that are wrong", stages.look_for_files, of_recipe=True),
    Pass("foreign architectures", foreign_packages.check, of_recipe=True),
    Pass("machines of the architecture", machines.check, of_recipe=True),
    Pass("needs", stages.check_needs, of_recipe=True),
    Pass("needs of the whole recipe", remarks.check_later_needs, of_recipe=True),
)


def run(reading: Reading, passes: Iterable[Pass]) -> None:
    """Runs `passes` in order. Raises InvalidDocument when a pass cannot continue."""
    try:
        for each in passes:
            if reading.recipe is not None or not each.of_recipe:
                each.run(reading)
    except InvalidDocument:
        # The pass that finds confidential variables may not have run, so withhold all values.
        used = [name for node in reading.source.root.walk() for name in node.made_of]
        known = reading.variables
        reading.source.withhold([*known.all_texts(), *known.unknown(used)])
        raise advised(reading.source) from None


def advised(source: Source) -> InvalidDocument:
    """The error with all problems of a recipe, each with its line and with what to do."""
    advice.complete(source)
    return source.invalid()

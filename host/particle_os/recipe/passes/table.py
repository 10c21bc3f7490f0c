"""All passes over the document of a recipe, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from particle_os.documents import confidential
from particle_os.errors import InvalidDocument
from particle_os.recipe.model import Recipe, stage_kinds
from particle_os.recipe.passes import (
    conditions,
    foreign,
    include,
    legacy,
    overwritten,
    remarks,
    stages,
    structure,
    templates,
    unit_names,
)
from particle_os.recipe.passes.reading import Reading


class Pass(NamedTuple):
    """One pass; a pass with `of_recipe` is skipped while the stages are unknown."""

    name: str
    run: Callable[[Reading], None]
    of_recipe: bool = False


def _replace_variables(reading: Reading) -> None:
    reading.variables.substitute(reading.source)


def _evaluate_conditions(reading: Reading) -> None:
    if stages := reading.source.root.child("stages"):
        conditions.apply(reading.source, stages, reading.variables)


def _fill_templates(reading: Reading) -> None:
    if stages := reading.source.root.child("stages"):
        templates.fill(reading.source, stages, reading.variables, reading.inside)


def _include(reading: Reading) -> None:
    include.expand(reading.source, reading.variables, reading.inside)


def _update(reading: Reading) -> None:
    legacy.normalise(reading.source, Recipe, stage_kinds())


def _conceal(reading: Reading) -> None:
    """Keeps confidential values, and the variables in them, out of messages."""
    root = reading.source.root
    confidential.mark(root, Recipe)
    hidden = [node for node in root.walk() if node.confidential]
    variables = {name for node in hidden for name in node.made_of}
    for node in root.walk():
        if not variables.isdisjoint(node.made_of):
            confidential.conceal(node)
    known = reading.variables
    reading.source.withhold([*known.texts(variables), *known.unknown(variables)])


def _check_length(reading: Reading) -> None:
    structure.check_length(reading.source, ("boot-test", "checks"))


PASSES = (
    Pass("variables", _replace_variables),
    Pass("conditions", _evaluate_conditions),
    Pass("templates", _fill_templates),
    Pass("included files", _include),
    Pass("older forms", _update),
    Pass("confidential values", _conceal),
    Pass("order of the stages", structure.check_order),
    Pass("firmware", structure.check_firmware),
    Pass("length of the checks", _check_length),
    Pass("types", stages.understand),
    Pass("names of secrets", stages.check_secrets, of_recipe=True),
    Pass("commands", remarks.check_commands, of_recipe=True),
    Pass("keys", remarks.check_keys, of_recipe=True),
    Pass("names of units", unit_names.check, of_recipe=True),
    Pass("files that a later stage writes", overwritten.check, of_recipe=True),
    Pass("architecture and files", stages.attach_files, of_recipe=True),
    Pass("files of stages that are wrong", stages.look_for_files, of_recipe=True),
    Pass("foreign architectures", foreign.check, of_recipe=True),
    Pass("needs", stages.check_needs, of_recipe=True),
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
        raise InvalidDocument(reading.source.problems, reading.source.notes) from None

"""The passes over a document whose stages are not understood yet."""

from __future__ import annotations

from particle_os.documents import confidential
from particle_os.recipe.model import Recipe, stage_kinds
from particle_os.recipe.passes import conditions, include, left_out, legacy, structure, templates
from particle_os.recipe.passes.reading import Pass, Reading


def _replace_variables(reading: Reading) -> None:
    reading.variables.substitute(reading.source)


def _evaluate_conditions(reading: Reading) -> None:
    if items := reading.source.root.child("stages"):
        conditions.apply(reading.source, items, reading.variables)


def _fill_templates(reading: Reading) -> None:
    if items := reading.source.root.child("stages"):
        templates.fill(reading.source, items, reading.variables, reading.inside)


def _include(reading: Reading) -> None:
    include.expand(reading.source, reading.variables, reading.inside)


def _update(reading: Reading) -> None:
    legacy.normalise(reading.source, Recipe, stage_kinds())


def _conceal(reading: Reading) -> None:
    """Keeps confidential values, and the variables in them, out of messages."""
    roots = (reading.source.root, left_out.left_out(reading.source))
    for root in roots:
        confidential.mark(root, Recipe)
    nodes = [node for root in roots for node in root.walk()]
    hidden = [node for node in nodes if node.confidential]
    known = reading.variables
    variables = known.related(name for node in hidden for name in node.made_of)
    secret = known.related(name for node in hidden if not node.public for name in node.made_of)
    for node in nodes:
        if not variables.isdisjoint(node.made_of):
            confidential.conceal(node, public=secret.isdisjoint(node.made_of))
    reading.hidden = frozenset(secret)
    reading.source.withhold([*known.texts(variables), *known.unknown(variables)])


def _check_length(reading: Reading) -> None:
    structure.check_length(reading.source, ("boot-test", "checks"))


def _read_goss(reading: Reading) -> None:
    reading.goss = structure.read_goss(reading.source, ("boot-test", "goss"), reading.inside)


OF_DOCUMENT = (
    Pass("variables", _replace_variables),
    Pass("older forms", _update),
    Pass("conditions", _evaluate_conditions),
    Pass("templates", _fill_templates),
    Pass("included files", _include),
    Pass("confidential values", _conceal),
    Pass("stages that are left out", left_out.check_left_out),
    Pass("order of the stages", structure.check_order),
    Pass("firmware", structure.check_firmware),
    Pass("length of the checks", _check_length),
    Pass("goss file", _read_goss),
)

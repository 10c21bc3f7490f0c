"""Passes over what the document says: its types, then its stages, also where some are wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from particle_agent.stages import RecipeStage
from particle_agent.stages.base import StageOptions

from particle_os.documents import validation
from particle_os.documents.document import Node, Source
from particle_os.errors import InvalidDocument
from particle_os.recipe import dependencies
from particle_os.recipe.attachments import attach, look
from particle_os.recipe.model import LoadedRecipe, Recipe, stage_kinds
from particle_os.recipe.names import vocabulary
from particle_os.recipe.passes.reading import Reading
from particle_os.recipe.passes.structure import may_apply


@dataclass(frozen=True, kw_only=True)
class _Unknown(StageOptions):
    """Stands for a stage that is not understood."""

    type: Literal["stage"] = "stage"


@dataclass(frozen=True, kw_only=True)
class _Configuring(_Unknown):
    """The same of a kind that brings nothing."""

    only_configures: ClassVar[bool] = True


def understand(reading: Reading) -> None:
    """Sets the recipe of a reading."""
    source = reading.source
    try:
        reading.recipe = validation.validate(source, Recipe, vocabulary(source))
    except InvalidDocument:
        reading.recipe = _understood_in_part(source)


def _understood_in_part(source: Source) -> Recipe | None:
    """What a document says in which something is wrong; None when it has no list of stages."""
    given, told = source.root.child("stages"), source.node(("base-image",))
    if given is None or not isinstance(given.value, list) or source.incomplete:
        return None
    recipe = Recipe(name="unknown", stages=tuple(map(_understood, given.value)))
    if told is not None and isinstance(told.value, str):
        recipe = replace(recipe, base_image=told.value)
    return recipe


def _understood(node: Node) -> Any:
    """A stage; one that is wrong by itself, or not known whole, may bring and need anything."""
    whole = not any(inner.unknown for inner in node.walk())
    if whole and (stage := validation.valid(RecipeStage, node.plain())):
        return stage
    kind = node.child("type")
    known = stage_kinds().get(kind.value) if kind and isinstance(kind.value, str) else None
    return _Configuring() if getattr(known, "only_configures", False) else _Unknown()


def check_secrets(reading: Reading) -> None:
    """Notes secrets of a stage that have the same name."""
    assert reading.recipe is not None
    for number, stage in enumerate(reading.recipe.stages):
        names = [secret.name for secret in stage.secrets]
        for index, name in enumerate(names):
            if name in names[:index]:
                key = ("stages", number, "secrets", index, "name")
                message = f"name: the stage has a secret '{name}' already"
                reading.complain(key, "bad-value", message)


def attach_files(reading: Reading) -> None:
    """Leaves out the stages for other architectures, and takes the files that the others name.

    Digests name the files from here on; what cannot be read is noted.
    """
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    stages, places, found = [], [], []
    for index, stage in enumerate(recipe.stages):
        mark = source.mark(("stages", index))
        if stage.when is not None and not stage.applies(recipe.architecture):
            meant = " and ".join(stage.when.architecture)
            why = f"it is for {meant}, not {recipe.architecture}"
            source.note(mark, "left-out", f"the stage {stage.label} is left out: {why}")
            continue
        directory = mark.path.parent
        attached, attachments = attach(stage, directory, ("stages", index), reading.complain)
        stages.append(attached)
        places.append(mark)
        found.append(tuple(attachments))
    reading.loaded = LoadedRecipe(
        recipe=replace(recipe, stages=tuple(stages)),
        path=source.path,
        places=tuple(places),
        attachments=tuple(found),
        files=source.files,
    )


def look_for_files(reading: Reading) -> None:
    """Notes the files that are not there and are named by stages that are not understood."""
    assert reading.recipe is not None
    for index, stage in enumerate(reading.recipe.stages):
        key = ("stages", index)
        node = reading.source.node(key)
        kind = node.child("type") if node else None
        if not isinstance(stage, _Unknown) or node is None or kind is None:
            continue
        known = stage_kinds().get(kind.value) if isinstance(kind.value, str) else None
        if known is not None and may_apply(node.plain(), reading.recipe.architecture):
            look(node, known, node.mark.path.parent, key, reading.complain)


def check_needs(reading: Reading) -> None:
    """Notes what stages need that no stage before them may have brought."""
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    dependencies.check(
        source,
        recipe.stages,
        architecture=recipe.architecture,
        base=recipe.base_image if reading.base is None else reading.base,
        secure_boot="uefi-secure" in (recipe.boot_test.firmware or ()),
    )
    dependencies.check_zones(source, recipe.stages)
    dependencies.check_suites(source, recipe.stages)

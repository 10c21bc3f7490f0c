"""Passes over the typed content of a document; they also work while some stages are wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from particle_agent.stages import RecipeStage
from particle_agent.stages.base import StageOptions

from particle_os.documents import validation
from particle_os.documents.document import Node, Source
from particle_os.errors import InvalidDocument
from particle_os.recipe import dependencies
from particle_os.recipe.files.attachments import Origin, attach, look
from particle_os.recipe.model import LoadedRecipe, Recipe, stage_kinds
from particle_os.recipe.names import vocabulary
from particle_os.recipe.parameters.secrets import fault_of_file
from particle_os.recipe.passes.reading import Reading
from particle_os.recipe.passes.structure import architecture_of, may_apply


@dataclass(frozen=True, kw_only=True)
class _Unknown(StageOptions):
    """The placeholder for a wrong stage."""

    type: Literal["stage"] = "stage"


@dataclass(frozen=True, kw_only=True)
class _Configuring(_Unknown):
    """The placeholder for a wrong stage that brings no packages, users or groups."""

    only_configures: ClassVar[bool] = True


def understand(reading: Reading) -> None:
    """Checks the types of the document and sets the recipe of the reading."""
    source = reading.source
    try:
        reading.recipe = validation.validate(source, Recipe, vocabulary(source))
    except InvalidDocument:
        reading.recipe = _understood_in_part(source)


def _understood_in_part(source: Source) -> Recipe | None:
    """The usable content of a wrong document; None without a complete list of stages."""
    stages, base = source.root.child("stages"), source.node(("base-image",))
    if stages is None or not isinstance(stages.value, list) or source.incomplete:
        return None
    known, architecture = tuple(map(_understood, stages.value)), architecture_of(source).name
    recipe = Recipe(name="unknown", stages=known, architecture=architecture)
    if base is not None and isinstance(base.value, str):
        recipe = replace(recipe, base_image=base.value)
    return recipe


def _understood(node: Node) -> Any:
    """The stage of a node; a placeholder when the stage is wrong or has unknown variables.

    A placeholder may bring and need anything.
    """
    whole = not any(inner.unknown for inner in node.walk())
    if whole and (stage := validation.valid(RecipeStage, node.plain())):
        return stage
    kind = node.child("type")
    known = stage_kinds().get(kind.value) if kind and isinstance(kind.value, str) else None
    return _Configuring() if getattr(known, "only_configures", False) else _Unknown()


def check_secrets(reading: Reading) -> None:
    """Notes repeated names among the secrets of a stage."""
    assert reading.recipe is not None
    for number, stage in enumerate(reading.recipe.stages):
        names = [secret.name for secret in stage.secrets]
        for index, name in enumerate(names):
            if name in names[:index]:
                key = ("stages", number, "secrets", index, "name")
                message = f"name: the stage has a secret '{name}' already"
                reading.complain(key, "bad-value", message)


def look_for_secrets(reading: Reading) -> None:
    """Notes the missing files of secrets, and complains about files that hold none."""
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    for number, stage in enumerate(recipe.stages):
        if stage.when is not None and not stage.applies(recipe.architecture):
            continue
        directory = source.mark(("stages", number)).path.parent
        for index, secret in enumerate(stage.secrets):
            key = ("stages", number, "secrets", index, "file")
            if secret.file is not None and (
                fault := fault_of_file(secret.file, directory, reading.inside)
            ):
                reason, may_be_elsewhere = fault
                message = f"the file of this secret {reason}"
                if may_be_elsewhere:
                    source.note(source.mark(key), "no-file", f"{message}; a build needs it")
                else:
                    reading.complain(key, "bad-file", message)


def attach_files(reading: Reading) -> None:
    """Drops the stages for other architectures, and attaches the files that the others name.

    Replaces the paths of the files by digests, and notes each file that cannot be read.
    """
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    stages, places, found = [], [], []
    confidential = set()
    for index, stage in enumerate(recipe.stages):
        mark = source.mark(("stages", index))
        if stage.when is not None and not stage.applies(recipe.architecture):
            meant = " and ".join(stage.when.architecture or ())
            why = f"it is for {meant}, not {recipe.architecture}"
            source.note(mark, "left-out", f"the stage {stage.label} is left out: {why}")
            continue
        origin = Origin(mark.path.parent, reading.inside)
        attached, attachments = attach(stage, origin, ("stages", index), reading.complain)
        stages.append(attached)
        places.append(mark)
        found.append(tuple(attachments))
        if _is_confidential(source.node(("stages", index)), reading.hidden):
            confidential.add(len(stages) - 1)
    reading.loaded = LoadedRecipe(
        recipe=replace(recipe, stages=tuple(stages)),
        path=source.path,
        places=tuple(places),
        attachments=tuple(found),
        files=source.files,
        goss=reading.goss,
        base_image_key=reading.base_image_key,
        confidential=frozenset(confidential),
    )


def _is_confidential(stage: Node | None, hidden: frozenset[str]) -> bool:
    """Whether one of the `hidden` variables is in a stage."""
    return stage is not None and any(not hidden.isdisjoint(n.made_of) for n in stage.walk())


def look_for_files(reading: Reading) -> None:
    """Notes the missing files of wrong stages, which `attach_files` does not see."""
    assert reading.recipe is not None
    for index, stage in enumerate(reading.recipe.stages):
        key = ("stages", index)
        node = reading.source.node(key)
        kind = node.child("type") if node else None
        if not isinstance(stage, _Unknown) or node is None or kind is None:
            continue
        known = stage_kinds().get(kind.value) if isinstance(kind.value, str) else None
        if known is not None and may_apply(node.plain(), reading.recipe.architecture):
            origin = Origin(node.mark.path.parent, reading.inside)
            look(node, known, origin, key, reading.complain)


def check_needs(reading: Reading) -> None:
    """Notes each need of a stage that no earlier stage can meet."""
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

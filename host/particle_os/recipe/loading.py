"""Recipes: YAML in, a typed `Recipe` out, and the JSON Schema that editors use."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

from particle_agent.contract.findings import ERRORS
from particle_agent.contract.options import kebab_case
from particle_agent.stages import RECIPE_STAGES, RecipeStage
from particle_agent.stages.base import StageOptions
from particle_agent.stages.output.qemu import Firmware, Qemu

from particle_os.documents import document, validation
from particle_os.documents.document import Key, Node
from particle_os.documents.words import did_you_mean, nearest
from particle_os.errors import InvalidDocument, UsageError
from particle_os.recipe import dependencies, include, legacy, variables
from particle_os.recipe.attachments import Complain, attach, look
from particle_os.recipe.checks import kinds as checks
from particle_os.recipe.checks import questions
from particle_os.recipe.model import BootTest, LoadedRecipe, Recipe, stage_name
from particle_os.recipe.variables import Variables


def load(
    path: Path, given: Mapping[str, str] | None = None, *, base: str | None = None
) -> LoadedRecipe:
    """Reads and validates a recipe with the files that it includes.

    `given` are values for its variables, `base` is what it starts from instead. Raises
    InvalidDocument with everything that is wrong, UsageError when a given value does not fit.
    """
    source = document.load(path)
    values = Variables(source, given or {})
    values.substitute(source)
    include.expand(source, values.substitute)
    _normalise(source)
    _check_order(source)
    _check_firmware(source)
    _check_length(source, ("boot-test", "checks"))
    loaded = _validated(source, base)
    if source.problems:
        raise InvalidDocument(source.problems, source.notes)
    return loaded


def load_stage(
    kind: str, path: Path, given: Mapping[str, str] | None = None, *, base: str
) -> LoadedRecipe:
    """Reads and validates the options of one stage: a recipe that holds nothing else.

    Raises as `load` does, and UsageError for a stage that does not run alone.
    """
    kind = kind.removeprefix(legacy.PREFIX)
    known = [stage_name(k) for k in RECIPE_STAGES if k is not Qemu]
    if kind not in known:
        hint = did_you_mean(nearest(kind, known), known)
        if kind == stage_name(Qemu):
            hint = "'particle-os build' runs it, with a recipe and --base."
        raise UsageError(f"there is no stage '{kind}' that runs alone", hint=hint)
    source = document.load(path)
    Variables(source, given or {}).substitute(source)
    _wrap(source, kind)
    _normalise(source)
    loaded = _validated(source, base)
    if source.problems:
        hint = "take a base that has it; 'stage run TYPE --output FILE.tar' makes one"
        raise InvalidDocument([dataclasses.replace(p, hint=hint) for p in source.problems])
    if not loaded.recipe.stages:
        raise UsageError(str(next(note for note in loaded.notes if note.code == "left-out")))
    return loaded


def _normalise(source: document.Source) -> None:
    legacy.normalise(source, Recipe, {stage_name(kind): kind for kind in RECIPE_STAGES})


def _wrap(source: document.Source, kind: str) -> None:
    """Makes a recipe of a document with the options of a stage."""
    options = source.root
    if not isinstance(options.value, dict):
        source.problem(options.mark, "bad-type", "expected the options of the stage, as a mapping")
        raise InvalidDocument(source.problems)
    said = options.value.setdefault("type", Node(kind, options.mark))
    if said.value not in (kind, legacy.PREFIX + kind):
        source.problem(said.mark, "bad-value", f"type: expected '{kind}', or nothing")
        raise InvalidDocument(source.problems)
    recipe = {"name": Node(kind, options.mark), "stages": Node([options], options.mark)}
    source.root = Node(recipe, options.mark)


def _validated(source: document.Source, base: str | None) -> LoadedRecipe:
    """What the document says; what stages lack that others should have brought is noted in it."""
    try:
        recipe = validation.validate(source, Recipe, _names_in(source))
    except InvalidDocument:
        _look_further(source, base)
        problems = sorted(source.problems, key=lambda p: (p.path, p.line, p.column))
        raise InvalidDocument(problems, source.notes) from None
    _check_secrets(source, recipe)
    loaded = _applicable(source, recipe)
    wrong = bool(source.problems)
    _check_needs(source, recipe, base)
    if wrong:
        raise InvalidDocument(source.problems, source.notes)
    return dataclasses.replace(loaded, notes=tuple(source.notes))


def _look_further(source: document.Source, base: str | None) -> None:
    """Notes what is wrong among the stages of a recipe in which something is wrong already."""
    given, told = source.root.child("stages"), source.node(("base-image",))
    if given is None or not isinstance(given.value, list) or source.incomplete:
        return
    stages = tuple(map(_understood, given.value))
    recipe = Recipe(name="unknown", stages=stages)
    if told is not None and isinstance(told.value, str):
        recipe = dataclasses.replace(recipe, base_image=told.value)
    _check_secrets(source, recipe)
    _applicable(source, recipe)
    _check_files(source, recipe)
    _check_needs(source, recipe, base)


def _check_files(source: document.Source, recipe: Recipe) -> None:
    """Notes the files that are not there and are named by stages that are not understood."""
    kinds = {stage_name(kind): kind for kind in RECIPE_STAGES}
    for index, stage in enumerate(recipe.stages):
        node = source.node(("stages", index))
        kind = node.child("type") if node else None
        if not isinstance(stage, _Unknown) or node is None or kind is None:
            continue
        if not isinstance(kind.value, str) or kind.value not in kinds:
            continue
        if _may_apply(node.plain(), recipe.architecture):
            key = ("stages", index)
            look(node, kinds[kind.value], node.mark.path.parent, key, _complaint(source))


def _understood(node: Node) -> Any:
    """A stage; one that is wrong by itself, or not known whole, may bring and need anything."""
    whole = not any(inner.unknown for inner in node.walk())
    if whole and (stage := validation.valid(RecipeStage, node.plain())):
        return stage
    kind = node.child("type")
    configures = {stage_name(k) for k in RECIPE_STAGES if getattr(k, "only_configures", False)}
    return _Configuring() if kind and kind.value in configures else _Unknown()


@dataclass(frozen=True, kw_only=True)
class _Unknown(StageOptions):
    """Stands for a stage that is not understood."""

    type: Literal["stage"] = "stage"


@dataclass(frozen=True, kw_only=True)
class _Configuring(_Unknown):
    """The same of a kind that brings nothing."""

    only_configures: ClassVar[bool] = True


def _check_needs(source: document.Source, recipe: Recipe, base: str | None) -> None:
    reference = recipe.base_image if base is None else base
    dependencies.check(
        source,
        recipe.stages,
        architecture=recipe.architecture,
        base=reference,
        secure_boot="uefi-secure" in (recipe.boot_test.firmware or ()),
    )
    dependencies.check_zones(source, recipe.stages)
    dependencies.check_suites(source, recipe.stages)


def _check_secrets(source: document.Source, recipe: Recipe) -> None:
    """Notes secrets of a stage that have the same name."""
    for number, stage in enumerate(recipe.stages):
        names = [secret.name for secret in stage.secrets]
        for index, name in enumerate(names):
            if name in names[:index]:
                mark = source.mark(("stages", number, "secrets", index, "name"))
                source.problem(mark, "bad-value", f"name: the stage has a secret '{name}' already")


def _check_firmware(source: document.Source) -> None:
    """Notes the firmwares under which the image could not boot, whatever else is wrong."""
    stages, named = source.node(("stages",)), source.node(("boot-test", "firmware"))
    if stages is None or named is None or not isinstance(named.value, list):
        return
    last = stages.value[-1].plain() if isinstance(stages.value, list) and stages.value else None
    given = last if isinstance(last, dict) else {}
    # It depends on these alone.
    asked = ("type", "boot-loader", "unified-kernel-image")
    disk = validation.valid(Qemu, {name: given[name] for name in asked if name in given})
    for node in named.value if given.get("type") == "qemu" and disk is not None else ():
        firmware = validation.valid(Firmware, node.plain())
        if firmware is not None and (reason := disk.refusal(firmware)):
            source.problem(node.mark, "bad-value", f"firmware: {reason}")


def _check_length(source: document.Source, place: Key) -> None:
    """Notes where checks become too long to be handed to an image, whatever else is wrong."""
    node = source.node(place)
    found = validation.valid(BootTest, {"checks": node.plain()}) if node is not None else None
    index = questions.first_beyond_limit(found.checks) if found is not None else None
    if index is not None:
        mark = source.mark((*place, index))
        source.problem(mark, "bad-value", f"checks: {questions.TOO_LONG}", questions.TOO_LONG_HINT)


def load_boot_test(path: Path) -> BootTest:
    """Reads a file that holds what stands under `boot-test` in a recipe.

    Raises InvalidDocument with everything that is wrong.
    """
    source = document.load(path)
    _check_length(source, ("checks",))
    return validation.validate(source, BootTest, _names_in(source, ("boot-test",)))


def _applicable(source: document.Source, recipe: Recipe) -> LoadedRecipe:
    """The recipe without the stages that are for other architectures.

    The files that its stages name are told by digest from here on; what cannot be read is noted
    in `source`.
    """
    stages, places, found = [], [], []
    for index, stage in enumerate(recipe.stages):
        mark = source.mark(("stages", index))
        if stage.when is not None and not stage.applies(recipe.architecture):
            meant = " and ".join(stage.when.architecture)
            why = f"it is for {meant}, not {recipe.architecture}"
            source.note(mark, "left-out", f"the stage {stage.label} is left out: {why}")
            continue
        attached, attachments = attach(
            stage, mark.path.parent, ("stages", index), _complaint(source)
        )
        stages.append(attached)
        places.append(mark)
        found.append(tuple(attachments))
    recipe = dataclasses.replace(recipe, stages=tuple(stages))
    return LoadedRecipe(
        recipe=recipe,
        path=source.path,
        places=tuple(places),
        attachments=tuple(found),
        files=source.files,
    )


def _complaint(source: document.Source) -> Complain:
    return lambda key, code, message: source.problem(source.mark(key), code, message)


def _check_order(source: document.Source) -> None:
    """Notes what is wrong with the order of the stages, whatever else is wrong with them."""
    stages = source.data.get("stages") if isinstance(source.data, dict) else None
    if not isinstance(stages, list) or not stages or source.incomplete:
        return
    wanted = source.data.get("architecture", "amd64")
    kinds = {
        index: stage.get("type") if isinstance(stage, dict) else None
        for index, stage in enumerate(stages)
        if _may_apply(stage, wanted)
    }
    for index, kind in list(kinds.items())[:-1]:
        if kind == "qemu":
            mark = source.mark(("stages", index))
            source.problem(
                mark, "bad-order", "the stage 'qemu' must be the last one, and only once"
            )
    known = {stage_name(kind) for kind in RECIPE_STAGES}
    # A stage whose type is wrong may be meant for the disk.
    if "qemu" not in kinds.values() and known.issuperset(map(str, kinds.values())):
        key: Key = ("stages", len(stages) - 1)
        why = ""
        hint = "add '- type: qemu' as the last stage"
        for index, stage in enumerate(stages):
            if isinstance(stage, dict) and stage.get("type") == "qemu":
                key, why = ("stages", index, "when"), f": 'when' leaves it out for {wanted}"
                hint = f"take 'when' out of the stage 'qemu', or name {wanted} in it"
        message = f"the recipe ends without a disk{why}"
        source.problem(source.mark(key, of_key=True), "bad-order", message, hint)


def _may_apply(stage: Any, architecture: object) -> bool:
    """Whether a stage that may be wrong in other ways is for images of this architecture."""
    when = stage.get("when") if isinstance(stage, dict) else None
    meant = when.get("architecture") if isinstance(when, dict) else None
    return not meant or architecture == meant or (isinstance(meant, list) and architecture in meant)


def _names_in(source: document.Source, place: Key = ()) -> Callable[[Key], Iterable[str]]:
    """`_names` for a document that is what a recipe has at `place`."""

    def names(key: Key) -> Iterable[str]:
        whole = (*place, *key)
        if whole[:1] == ("accepted-errors",):
            return ERRORS
        if whole[:2] == ("boot-test", "checks"):
            node = source.node(key)
            return checks.keys(node.value if node and isinstance(node.value, dict) else {})
        kind = source.node((*key[:2], "type")) if whole[:1] == ("stages",) else None
        stage = kind.value if kind is not None and isinstance(kind.value, str) else None
        return _names(tuple(part for part in whole if isinstance(part, str)), stage)

    return names


@functools.cache
def _names(key: tuple[str, ...], stage: str | None) -> tuple[str, ...]:
    """The right keys at a path of a recipe; for a stage's `type`, the stages' names.

    Within stages they are those of the stage's own class, when that is known.
    """
    if key and key[-1] == "type":
        return tuple(sorted(stage_name(kind) for kind in RECIPE_STAGES))
    candidates: list[Any] = [Recipe]
    for part in key:
        found = []
        for kind in candidates:
            hints = get_type_hints(kind, include_extras=True)
            field = part.replace("-", "_")
            if field == "stages":
                own = [each for each in RECIPE_STAGES if stage_name(each) == stage]
                found += own or list(RECIPE_STAGES)
            elif field in hints and (inner := validation.options_class(hints[field])):
                found.append(inner)
        candidates = found
    known = {kebab_case(f.name) for kind in candidates for f in dataclasses.fields(kind)}
    return tuple(sorted(known if key else known | {variables.KEY}))

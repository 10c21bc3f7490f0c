"""Recipes: YAML in, a typed `Recipe` out, and the JSON Schema that editors use."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import pydantic
from particle_agent.options import AtLeastOne, Options, Text, UnitName, kebab_case
from particle_agent.stages import RECIPE_STAGES, RecipeStage
from particle_agent.stages.qemu import Qemu

from particle_os import document
from particle_os.attachments import Attachment, attach
from particle_os.document import Key
from particle_os.errors import InvalidDocument, UsageError

RecipeName = Annotated[
    str,
    # It names files and, where the base has none, the host (RFC 1123).
    Text(
        "a name of a-z, 0-9 and '-', at most 63 characters",
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        63,
    ),
]
BaseReference = Annotated[
    str,
    Text(
        "a base image: 'mmdebstrap:SUITE' or 'tar:PATH'",
        r"mmdebstrap:[a-z][a-z0-9-]*|tar:[^\x00-\x1f\x7f]+",
        4096,
    ),
]


# Of each stage, the files of the host that it names.
Attachments = tuple[tuple[Attachment, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Check(Options):
    """One thing that must hold in the booted image."""

    unit: UnitName
    """A systemd unit that must be active."""


@dataclass(frozen=True, kw_only=True)
class BootTest(Options):
    """How the finished image is booted and what must hold in it."""

    firmware: Annotated[tuple[Literal["bios"], ...], AtLeastOne()] = ("bios",)
    """The firmware to boot under."""
    checks: tuple[Check, ...] = ()
    """What must hold besides: systemd settled and no unit failed."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Options):
    """A bootable image: what it starts from and the stages that make it."""

    name: RecipeName
    """The name of the image; its files are called NAME.raw and so on."""
    description: str = ""
    """One line for people."""
    base_image: BaseReference = "mmdebstrap:trixie"
    """What the image starts from: mmdebstrap:SUITE (bootstrapped from the Debian mirror) or
    tar:PATH (a root file system; plain, gzip, xz or zstd; relative to the recipe)."""
    architecture: Literal["amd64"] = "amd64"
    """The Debian architecture of the image."""
    stages: Annotated[
        tuple[Annotated[RecipeStage, pydantic.Field(discriminator="type")], ...], AtLeastOne()
    ]
    """What is done, in order. The last stage is `qemu`."""
    boot_test: BootTest = BootTest()
    """How the image is verified."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe and the file it came from.

    For each stage: the line at which it begins, and the files of the host that it names.
    """

    recipe: Recipe
    path: Path
    stage_lines: tuple[int, ...]
    attachments: Attachments

    @property
    def disk(self) -> Qemu:
        last = self.recipe.stages[-1]
        assert isinstance(last, Qemu)
        return last


_ADAPTER: pydantic.TypeAdapter[Recipe] = pydantic.TypeAdapter(Recipe)


def load(path: Path) -> LoadedRecipe:
    """Reads and validates a recipe. Raises InvalidDocument with everything that is wrong."""
    source = document.load(path)
    _check_order(source)
    recipe = document.validate(source, _ADAPTER, _names)
    recipe, attachments = _attach(source, recipe)
    lines = tuple(source.line(("stages", i)) or 1 for i in range(len(recipe.stages)))
    return LoadedRecipe(recipe, path, lines, attachments)


def _attach(source: document.Source, recipe: Recipe) -> tuple[Recipe, Attachments]:
    """The recipe with the files that its stages name told by digest, and these files."""

    def complain(key: Key, message: str) -> None:
        source.problem(source.mark(key), "no-file", message)

    stages, found = [], []
    for index, stage in enumerate(recipe.stages):
        attached, attachments = attach(stage, source.path.parent, ("stages", index), complain)
        stages.append(attached)
        found.append(tuple(attachments))
    if source.problems:
        raise InvalidDocument(source.problems)
    return dataclasses.replace(recipe, stages=tuple(stages)), tuple(found)


def is_unit_name(text: str) -> bool:
    return bool(get_args(UnitName)[1].accepts(text))


def check_base_reference(reference: str) -> None:
    """Raises UsageError unless `reference` (from the command line) names a base image."""
    constraint = get_args(BaseReference)[1]
    if not constraint.accepts(reference):
        raise UsageError(f"--base: expected {constraint.what}, found '{reference}'")


def _check_order(source: document.Source) -> None:
    """Notes what is wrong with the order of the stages, whatever else is wrong with them."""
    stages = source.data.get("stages") if isinstance(source.data, dict) else None
    if not isinstance(stages, list) or not stages:
        return
    kinds = [stage.get("type") if isinstance(stage, dict) else None for stage in stages]
    for index, kind in enumerate(kinds[:-1]):
        if kind == "qemu":
            mark = source.mark(("stages", index))
            source.problem(
                mark, "bad-order", "the stage 'qemu' must be the last one, and only once"
            )
    known = {stage_name(kind) for kind in RECIPE_STAGES}
    # A stage whose type is wrong may be meant for the disk.
    if "qemu" not in kinds and known.issuperset(map(str, kinds)):
        source.problem(
            source.mark(("stages", len(kinds) - 1)),
            "bad-order",
            "the recipe ends without a disk",
            "add '- type: qemu' as the last stage",
        )


def _options_class(annotation: Any, data_type: str | None = None) -> Any:
    """The options class within an annotation: through Annotated, tuple, and unions by type."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        if data_type is None or getattr(annotation, "type", None) in (None, data_type):
            return annotation
        return None
    for argument in get_args(annotation):
        if found := _options_class(argument, data_type):
            return found
    return None


def _names(key: Key) -> Iterable[str]:
    """The right keys at a path of a recipe; for a stage's `type`, the stages' names."""
    if key and key[-1] == "type":
        return sorted(stage_name(kind) for kind in RECIPE_STAGES)
    # Within stages every options class is reached by the stage's own fields.
    candidates: list[Any] = [Recipe]
    for part in key:
        if isinstance(part, int):
            continue
        found = []
        for kind in candidates:
            hints = get_type_hints(kind, include_extras=True)
            field = part.replace("-", "_")
            if field == "stages":
                found += list(RECIPE_STAGES)
            elif field in hints and (inner := _options_class(hints[field])):
                found.append(inner)
        candidates = found
    return sorted({kebab_case(f.name) for kind in candidates for f in dataclasses.fields(kind)})


def stage_name(kind: Any) -> str:
    """The word that stands for a stage class in recipes."""
    return str(kind.type)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of recipes, with descriptions from the docstrings."""
    schema = _ADAPTER.json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "particle-os recipe"
    for kind in RECIPE_STAGES:
        # pydantic leaves the tag out because it has a default; a recipe must say it.
        definition = schema["$defs"][kind.__name__]
        definition["required"] = ["type", *definition.get("required", [])]
        definition["properties"]["type"].pop("default", None)
    return schema

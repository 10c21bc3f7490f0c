"""Converts recipes of the predecessor of particle-os into the current form, where it is certain.

The predecessor used long stage names, and a separate mapping for the options:
`{type: org.osbuild.debian.apt, options: {packages: [...]}}`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

from particle_agent.contract.options import kebab_case

from particle_os.documents.annotations import options_class
from particle_os.documents.document import Node, Source
from particle_os.documents.words import shown_key

PREFIX = "org.osbuild.debian."
# Stages of osbuild and actions of debos: today's stage, and the options with other names.
OTHERS = {
    "org.osbuild.ostree.commit": ("ostree", {"os_version": "version"}),
    "ostree-commit": ("ostree", {"branch": "ref"}),
}


def normalise(source: Source, recipe: type, kinds: Mapping[str, Any]) -> None:
    """Converts a recipe and its stages into the current form, and notes each change.

    `recipe` is the class of recipes, `kinds` are the stage classes by name. Everything that is not
    recognised stays unchanged, as do the files that the recipe includes.
    """
    if isinstance(source.root.value, dict):
        given, source.root.value = source.root.value, {}
        _take_over(source, source.root.value, given, _names(recipe))
    if stages := source.root.child("stages"):
        normalise_stages(source, stages, kinds)


def normalise_stages(source: Source, stages: Node, kinds: Mapping[str, Any]) -> None:
    """Converts the stages in a list of stages, as `normalise` does."""
    for stage in stages.value if isinstance(stages.value, list) else ():
        if isinstance(stage.value, dict):
            _rename(source, stage, kinds)
            kind = stage.child("type")
            if kind is not None and isinstance(kind.value, str) and kind.value in kinds:
                _lift(source, stage, kinds[kind.value])
                _host_name(source, stage)


def _rename(source: Source, stage: Node, kinds: Mapping[str, Any]) -> None:
    options: dict[str, Node] = stage.value
    name = options.get("name")
    if "type" not in options and name is not None and str(name.value).startswith(PREFIX):
        # Stages of osbuild's first manifest format have a name and no type.
        options["type"] = options.pop("name")
    action = options.get("action")
    if "type" not in options and action is not None and action.value in OTHERS:
        options["type"] = options.pop("action")
    kind = options.get("type")
    if kind is not None and isinstance(kind.value, str) and kind.value in OTHERS:
        _rename_other(source, stage, kind)
        return
    if kind is None or not isinstance(kind.value, str) or not kind.value.startswith(PREFIX):
        return
    short = kind.value.removeprefix(PREFIX)
    if short in kinds:
        _note(source, kind, f"'{kind.value}' is called '{short}' now: write 'type: {short}'")
        kind.value = short


def _rename_other(source: Source, stage: Node, kind: Node) -> None:
    """Gives a stage of another program, and its options, today's names."""
    short, names = OTHERS[kind.value]
    _note(source, kind, f"'{kind.value}' is called '{short}' here: write 'type: {short}'")
    kind.value = short
    for place in (stage, stage.child("options")):
        options = place.value if place is not None and isinstance(place.value, dict) else {}
        for old, new in names.items():
            if old in options and new not in options:
                _note(source, options[old], f"'{old}' is called '{new}' here")
                options[new] = options.pop(old)


def _lift(source: Source, stage: Node, kind: Any) -> None:
    """Moves the content of `options` into the stage itself."""
    fields = _names(kind)
    inner = stage.child("options")
    if inner is None or "options" in fields or not isinstance(inner.value, dict | None):
        return
    del stage.value["options"]
    _note(source, inner, "the options of a stage stand beside its 'type' now, without 'options:'")
    _take_over(source, stage.value, inner.value or {}, fields)
    _rename_below(source, stage, kind)


def _rename_below(source: Source, node: Node, kind: Any) -> None:
    """Converts the keys of the mappings in the options of `kind` into the current form."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        inner, value = options_class(hints[field.name]), node.child(kebab_case(field.name))
        if inner is None or value is None:
            continue
        for item in value.value if isinstance(value.value, list) else [value]:
            if isinstance(item.value, dict):
                given, item.value = item.value, {}
                _take_over(source, item.value, given, _names(inner))
                _rename_below(source, item, inner)


def _names(kind: Any) -> set[str]:
    return {kebab_case(field.name) for field in dataclasses.fields(kind)}


def _take_over(
    source: Source, options: dict[str, Node], given: Mapping[str, Node], fields: set[str]
) -> None:
    """Adds the given keys to `options`; replaces underscores that are hyphens now."""
    for name, node in given.items():
        spelled = name.replace("_", "-")
        right = spelled if name not in fields and spelled in fields else name
        if right in options:
            message = f"the key '{shown_key(right)}' stands here a second time"
            first, second = sorted(one.key or one.mark for one in (options[right], node))
            source.problem(
                second, "repeated-key", message, f"remove one; the first is at line {first.line}"
            )
            continue
        if right != name:
            _note(source, node, f"'{name}' is called '{right}' now")
        options[right] = node


def _host_name(source: Source, stage: Node) -> None:
    """Renames the `name` of a `hostname` stage, which once was the name of the host."""
    options: dict[str, Node] = stage.value
    if options["type"].value == "hostname" and "hostname" not in options and "name" in options:
        options["hostname"] = options.pop("name")
        _note(source, options["hostname"], "the host's name is called 'hostname' now, not 'name'")


def _note(source: Source, node: Node, message: str) -> None:
    source.note(node.key or node.mark, "older-form", message)

"""Expands the files that recipes include, such as `- include: common/base.yml`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from copy import copy as shallow
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from particle_os.documents import parsing
from particle_os.documents.document import Mark, Node, Source
from particle_os.documents.parsing import NODE_LIMIT
from particle_os.documents.words import did_you_mean, nearest, shown_key, unlike_a_path
from particle_os.errors import InvalidDocument
from particle_os.recipe.files.directories import matching
from particle_os.recipe.files.inside import outside
from particle_os.recipe.model import Recipe, stage_kinds
from particle_os.recipe.parameters.variables import Variables
from particle_os.recipe.passes import conditions, legacy, templates

KEY, ARGUMENTS, WHEN = "include", "with", conditions.WHEN
# The directory of a recipe's own types of stages.
OWN_STAGES = "stages"
OWN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# Each included stage has these options of the recipe's own stage, unless it has one itself.
SHARED = ("timeout", "network")
NAME, NAME_LIMIT = "name", 80
DEPTH_LIMIT = 10
# Inclusions of one recipe.
COUNT_LIMIT = 100


def expand(source: Source, variables: Variables, inside: Path | None = None) -> None:
    """Replaces each `include`, and each stage of a type of the recipe's own, by included stages.

    `variables` are those of the recipe. The files must be in the directory `inside`, unless it is
    None. Notes the problems of a file in `source`, with their places in that file. A file that
    cannot be read makes `source` incomplete. Raises InvalidDocument when the recipe exceeds the
    limits on included files and values.
    """
    if stages := source.root.child("stages"):
        expansion = _Expansion(source, inside)
        expansion.expand(stages, (source.path,), variables)
        expansion.check_left_out(variables)


def own_stages(directory: Path, inside: Path | None) -> dict[str, Path]:
    """The recipe's own types of stages by name: the files stages/NAME.yml beside the recipe.

    There are none when `stages` leads out of `inside`, unless that is None.
    """
    try:
        found = matching(directory / OWN_STAGES, ["*.yml"], inside)
    except OSError:
        return {}
    return {path.stem: path for path in found if OWN_NAME.fullmatch(path.stem)}


class _Inclusion(NamedTuple):
    """A file that replaces an item of the stages, and the values for its variables.

    There is no path if the item names none. `is_own` means a type of stage of the recipe's own.
    """

    path: Path | None
    arguments: Mapping[str, Node]
    is_own: bool


class _Place(NamedTuple):
    """The files and the variables that an item of the stages has, and its file if it is known."""

    chain: tuple[Path, ...]
    variables: Variables
    inclusion: _Inclusion | None = None


class _Expansion:
    """The inclusions of one recipe, with counts of the files and of their values."""

    def __init__(self, source: Source, inside: Path | None) -> None:
        self._source = source
        self._inside = inside
        self._count = 0
        self._read_files: dict[Path, Source] = {}
        # By the `id` of each item that is left out.
        self._left_out: dict[int, _Place] = {}
        # The document while what is left out is checked.
        self._apart: Source | None = None
        self._nodes = sum(1 for _ in source.root.walk())
        named = source.root.child("architecture")
        self._architecture = str(named.value) if named is not None else Recipe.architecture
        self._own = own_stages(source.path.parent, inside)
        for name in [name for name in self._own if name in stage_kinds()]:
            why = f"is no type of stage of your own: '{name}' is a stage of particle-os"
            source.note(Mark(self._own.pop(name), 1, 1), "own-stage", f"the file {why}")

    def expand(self, stages: Node, chain: tuple[Path, ...], variables: Variables) -> None:
        """Replaces the inclusions in a list of stages; `chain` are the including files."""
        if not isinstance(stages.value, list):
            return
        found: list[Node] = []
        for item in stages.value:
            if (inclusion := self._inclusion(item)) is None:
                found.append(item)
            elif conditions.holds_for(self._source, item, self._architecture):
                found += self._included(item, inclusion, chain, variables)
            else:
                self._left_out[id(item)] = _Place(chain, variables, inclusion)
        stages.value = found

    def check_left_out(self, variables: Variables) -> None:
        """Notes the problems of each inclusion that its condition leaves out.

        `variables` are those of the recipe. The stages of these inclusions are `apart` in the
        source, for the checks of their types.
        """
        whole, waiting = self._source, [*self._source.left_out]
        known = {id(item) for item in waiting}
        apart = self._apart = self._source = shallow(whole)
        apart.notes, apart.files = [], {}
        while waiting:
            item, apart.left_out = waiting.pop(), []
            place = self._left_out.get(id(item), _Place((whole.path,), variables))
            inclusion = place.inclusion
            if inclusion is None and (inclusion := self._inclusion(item)):
                conditions.check(apart, item)
            if inclusion is not None:
                whole.apart += self._included(item, inclusion, place.chain, place.variables)
            elif id(item) not in known:
                whole.apart.append(item)
            waiting += apart.left_out
        self._source = whole

    def _inclusion(self, item: Node) -> _Inclusion | None:
        """The file that replaces an item of the stages; None for a stage."""
        if isinstance(item.value, dict) and KEY in item.value:
            self._check_keys(item)
            found = _Inclusion(self._path(item), self._arguments(item), is_own=False)
        elif path := self._own_stage(item):
            arguments = {k: v for k, v in item.value.items() if k not in ("type", WHEN)}
            found = _Inclusion(path, arguments, is_own=True)
        else:
            return None
        self._source.included.append(item)
        return found

    def _own_stage(self, item: Node) -> Path | None:
        """The file of a stage whose type is one of the recipe's own."""
        kind = item.child("type")
        return self._own.get(kind.value) if kind and isinstance(kind.value, str) else None

    def _included(
        self,
        item: Node,
        inclusion: _Inclusion,
        chain: tuple[Path, ...],
        variables: Variables,
    ) -> list[Node]:
        path, arguments, is_own = inclusion
        if path is None or not self._may_be_read(item, path, chain):
            self._source.incomplete = True
            return []
        try:
            included = self._read(path)
        except InvalidDocument as invalid:
            self._source.problems += invalid.problems
            self._source.incomplete = True
            return []
        self._nodes += sum(1 for _ in included.root.walk())
        if self._nodes > NODE_LIMIT:
            message = f"the recipe holds more than {NODE_LIMIT} values with what it includes"
            self._refuse(item, message)
        try:
            if is_own:
                arguments = _arguments_of_own(included, arguments)
            inner = variables.of_included(included, arguments, item.mark)
            inner.substitute(included)
            stages = self._stages(included)
            if stages is not None:
                legacy.normalise_stages(included, stages, stage_kinds())
                conditions.apply(included, stages, inner)
                for left in included.left_out:
                    self._left_out[id(left)] = _Place((*chain, path), inner)
                if self._source is not self._apart:
                    templates.fill(included, stages, inner, self._inside)
        finally:
            self._source.files.update(included.files)
            self._source.texts.update(included.texts)
            self._source.problems += included.problems
            self._source.notes += included.notes
            self._source.left_out += included.left_out
        if stages is None:
            self._source.incomplete = True
            return []
        self.expand(stages, (*chain, path), inner)
        nodes: list[Node] = stages.value
        if is_own:
            _share(item, arguments, nodes)
        return nodes

    def _read(self, path: Path) -> Source:
        """The document of an included file, which is read once however often it is included."""
        if path not in self._read_files:
            self._read_files[path] = parsing.load(path)
        return self._read_files[path].fresh()

    def _check_keys(self, item: Node) -> None:
        for key, node in item.value.items():
            if key not in (KEY, ARGUMENTS, WHEN):
                hint = did_you_mean(nearest(key, [KEY, ARGUMENTS, WHEN]), [KEY, ARGUMENTS, WHEN])
                message = f"unknown key '{shown_key(key)}'"
                self._source.problem(node.key, "unknown-key", message, hint)

    def _arguments(self, item: Node) -> Mapping[str, Node]:
        node = item.child(ARGUMENTS)
        if node is None or node.unknown:
            return {}
        if not isinstance(node.value, dict):
            message = f"{ARGUMENTS}: expected a mapping from variables to values"
            self._source.problem(node.mark, "bad-type", message)
            return {}
        arguments: dict[str, Node] = node.value
        return arguments

    def _path(self, item: Node) -> Path | None:
        """The path that an item names, relative to the file that contains the item."""
        name: Node = item.value[KEY]
        if name.unknown:
            return None
        text = name.value
        if not isinstance(text, str) or not text.isprintable() or text in ("", "."):
            self._source.problem(name.mark, "bad-value", f"{KEY}: expected the path of a file")
            return None
        if PurePosixPath(text).is_absolute():
            shown = unlike_a_path(text) or f"'{text}'"
            message = f"{KEY}: expected a path relative to this file, found {shown}"
            self._source.problem(name.mark, "bad-value", message)
            return None
        return _plain(item.mark.path.parent / text)

    def _may_be_read(self, item: Node, path: Path, chain: tuple[Path, ...]) -> bool:
        name = item.value.get(KEY, item)
        mark, shown = name.mark, unlike_a_path(str(path)) or path
        self._count += 1
        if self._count > COUNT_LIMIT:
            self._refuse(item, f"more than {COUNT_LIMIT} files are included")
        try:
            if fault := outside(path, self._inside):
                self._source.problem(mark, "no-file", f"{shown}: {fault}")
                return False
            if not stat.S_ISREG(path.stat().st_mode):
                self._source.problem(mark, "no-file", f"{shown}: is no regular file")
                return False
            real = path.resolve()
        except (OSError, ValueError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            self._source.problem(mark, "no-file", f"{shown}: {why}")
            return False
        if real in [other.resolve() for other in chain]:
            cycle = " -> ".join(str(step) for step in (*chain, path))
            self._source.problem(mark, "include-cycle", f"the file includes itself: {cycle}")
            return False
        if len(chain) > DEPTH_LIMIT:
            message = f"files are included more than {DEPTH_LIMIT} deep"
            self._source.problem(mark, "too-complex", message)
            return False
        return True

    def _stages(self, included: Source) -> Node | None:
        """The list of stages in an included file; None when there is none."""
        root = included.root
        if isinstance(root.value, dict):
            allowed = ["stages", "description", "variables"]
            for key, node in root.value.items():
                if key not in allowed:
                    hint = did_you_mean(nearest(key, allowed), allowed)
                    message = f"unknown key '{shown_key(key)}'"
                    self._source.problem(node.key, "unknown-key", message, hint)
            about = root.value.get("description")
            if about is not None and not isinstance(about.value, str):
                message = "description: expected a string"
                self._source.problem(about.mark, "bad-type", message)
            found: Node = root.value.get("stages", root)
            root = found
        if not isinstance(root.value, list):
            message = "an included file is a list of stages, or a mapping with 'stages'"
            self._source.problem(root.mark, "bad-type", message)
            return None
        return root

    def _refuse(self, item: Node, message: str) -> None:
        self._source.problem(item.value.get(KEY, item).mark, "too-complex", message)
        raise self._source.invalid()


def _arguments_of_own(included: Source, given: Mapping[str, Node]) -> Mapping[str, Node]:
    """The arguments among the options of a recipe's own stage.

    An option of every stage is none, unless the file has a variable of that name.
    """
    declared = included.root.child("variables")
    return {
        name: node
        for name, node in given.items()
        if name not in (NAME, *SHARED) or (declared is not None and declared.child(name))
    }


def _share(item: Node, arguments: Mapping[str, Node], stages: list[Node]) -> None:
    """Gives the included stages the options of every stage that the recipe's own stage has.

    The name of each begins with the name of the own stage, which is its type by default.
    """
    options = {k: v for k, v in item.value.items() if k not in arguments}
    name = options.get(NAME, item.value["type"])
    for stage in stages:
        if not isinstance(stage.value, dict):
            continue
        for key in SHARED:
            if key in options:
                stage.value.setdefault(key, options[key])
        stage.value[NAME] = _named(name, stage.value.get(NAME))


def _named(outer: Node, inner: Node | None) -> Node:
    if inner is None:
        return replace(outer)
    text = f"{outer.value}: {inner.value}"
    if not isinstance(outer.value, str) or not isinstance(inner.value, str):
        return inner if isinstance(outer.value, str) else outer
    if len(text) > NAME_LIMIT:
        return inner
    return replace(inner, value=text, made_of=(*outer.made_of, *inner.made_of))


def _plain(path: Path) -> Path:
    """The path without "..", as other programs print it; unchanged if a symbolic link precedes."""
    plain = Path(os.path.normpath(path))
    try:
        return plain if plain.parent.samefile(path.parent) else path
    except OSError:
        return path

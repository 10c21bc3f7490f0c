"""Checks the stages that conditions leave out: another value of a variable may bring them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from copy import copy as shallow
from dataclasses import dataclass
from typing import Annotated

import pydantic
from particle_agent.contract.options import Options
from particle_agent.stages import RecipeStage

from particle_os.documents import validation
from particle_os.documents.document import Node, Source
from particle_os.errors import InvalidDocument
from particle_os.recipe.names import vocabulary
from particle_os.recipe.passes import templates
from particle_os.recipe.passes.reading import Reading


@dataclass(frozen=True, kw_only=True)
class _LeftOut(Options):
    """The stages that conditions leave out."""

    stages: tuple[Annotated[RecipeStage, pydantic.Field(discriminator="type")], ...]


def left_out(source: Source) -> Node:
    """A document with the stages that conditions leave out, and those of inclusions among them."""
    included = {id(item) for item in source.included}
    stages = [item for item in source.left_out if id(item) not in included] + source.apart
    return Node({"stages": Node(stages, source.root.mark)}, source.root.mark)


def check_left_out(reading: Reading) -> None:
    """Notes the wrong types and options of the stages that conditions leave out."""
    source = reading.source
    alone = shallow(source)
    alone.root, alone.problems = left_out(source), [*source.problems]
    for file in _files(alone.root):
        file.value.pop(templates.ASKED, None)
    with suppress(InvalidDocument):
        validation.validate(alone, _LeftOut, vocabulary(alone))
    source.problems = alone.problems


def _files(root: Node) -> Iterator[Node]:
    """The items of the option `files` of each stage."""
    for stage in root.value["stages"].value:
        files = stage.child("files")
        for file in files.value if files is not None and isinstance(files.value, list) else ():
            if isinstance(file.value, dict):
                yield file

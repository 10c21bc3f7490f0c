"""Fills the variables into copied files that ask for it: `files: {source: x, template: true}`."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

from particle_agent.stages.contents.files import Files

from particle_os.documents.document import Mark, Node, Source
from particle_os.recipe.files.inside import outside
from particle_os.recipe.parameters.variables import Variables
from particle_os.system.regular_file import read_regular

# The option of a copied file that asks for it.
ASKED = "template"
# In bytes.
LIMIT = 1 << 20


def fill(source: Source, stages: Node, variables: Variables, inside: Path | None) -> None:
    """Replaces each template of the stages by its content, which keeps the mode of the file.

    Templates must be in the directory `inside`, unless it is None. Notes the problems in `source`.
    """
    for file in _templates(stages):
        name, asked = file.value["source"], file.value.pop(ASKED)
        path = file.mark.path.parent / name.value
        try:
            if fault := outside(path, inside):
                raise ValueError(fault)
            if path.is_dir():
                raise ValueError("is a directory; a template is a file")
            data = read_regular(path, LIMIT)
            text = data.decode()
            mode = stat.S_IMODE(path.stat().st_mode)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            source.problem(name.mark, "no-file", f"{name.value}: {why}")
            name.unknown = True
            continue
        variables.budget.charge(source, name.mark, len(text))
        filled = Source(path)
        filled.lines = text.split("\n")
        content = filled.root = Node(text, Mark(path, 1, 1))
        try:
            variables.substitute_text(filled)
        finally:
            source.problems += filled.problems
        source.files[path] = hashlib.sha256(data).hexdigest()
        del file.value["source"]
        file.value["content"] = Node(
            content.value, name.mark, name.key, unknown=content.unknown, made_of=content.made_of
        )
        file.value.setdefault("mode", Node(f"{mode:04o}", asked.mark, asked.key))


def _templates(stages: Node) -> Iterator[Node]:
    """The files of the stages that are templates, as far as they are well-formed."""
    for stage in stages.value if isinstance(stages.value, list) else ():
        kind, files = stage.child("type"), stage.child("files")
        if kind is None or kind.value != Files.type or files is None:
            continue
        for file in files.value if isinstance(files.value, list) else ():
            asked, name = file.child(ASKED), file.child("source")
            if asked is None or name is None or name.unknown:
                continue
            # The check of the types refuses several sources of one file.
            if file.child("content") or file.child("download"):
                continue
            if asked.value is True and isinstance(name.value, str) and name.value.isprintable():
                yield file

"""Recognises the recipes of other image builders, to name them instead of their many mistakes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from particle_os.documents import parsing
from particle_os.documents.document import Source
from particle_os.documents.parsing import SIZE_LIMIT
from particle_os.errors import InvalidDocument
from particle_os.recipe.passes import advice
from particle_os.system.regular_file import read_regular


@dataclass(frozen=True)
class Builder:
    """Another image builder: a pattern of its recipes, and the stages that do the same here."""

    name: str
    pattern: str
    instead: str


# https://github.com/go-debos/debos, mkosi(1), https://osbuild.org/docs/user-guide/blueprint-reference
# and https://osinside.github.io/kiwi/image_description.html
BUILDERS = (
    Builder(
        "debos",
        r"^actions:\s*(#.*)?$[\s\S]*^\s*- +action:|^\s*- +action: *(debootstrap|mmdebstrap)\b",
        "its actions become stages: 'apt' is apt, 'overlay' is files, 'run' is run, and "
        "'image-partition' and 'filesystem-deploy' are qemu",
    ),
    Builder(
        "mkosi",
        r"^\[(Distribution|Output|Content|Packages|Validation|Host|Build|Runtime|Match|Config)\]\s*$",
        "'Packages=' becomes the stage apt, 'ExtraTrees=' files, scripts run, and '[Output]' qemu",
    ),
    Builder(
        "osbuild (a manifest)",
        r'^pipelines:\s*$|"pipelines"\s*:\s*\[',
        "each stage of the pipeline of the system becomes a stage, and the others become qemu",
    ),
    Builder(
        "image-builder (a blueprint)",
        r'^\[\[(packages|modules|groups)\]\]|^\[+customizations\b|"customizations"\s*:',
        "'packages' becomes the stage apt, and the customizations hostname, users, services, "
        "files, timezone and locale",
    ),
    Builder(
        "KIWI",
        r"<image\b[^>]*\bschemaversion=",
        "'packages' becomes the stage apt, 'users' users, config.sh run, and 'type' qemu",
    ),
)  # fmt: skip


def find(text: str) -> Builder | None:
    """The builder whose recipe a text is; None for other texts."""
    return next((b for b in BUILDERS if re.search(b.pattern, text, re.MULTILINE)), None)


def _check(source: Source) -> None:
    """Raises InvalidDocument when a document without stages is a recipe of another builder."""
    if isinstance(source.root.value, dict) and "stages" in source.root.value:
        return
    if builder := find("\n".join(source.lines)):
        raise _error(source.path, builder)


def load(path: Path) -> Source:
    """Parses the document of a recipe. Raises InvalidDocument, with advice for each problem.

    A recipe of another builder is one problem.
    """
    try:
        source = parsing.load(path)
    except InvalidDocument as invalid:
        raise _named(advice.added_to(invalid), path) from None
    _check(source)
    return source


def _named(invalid: InvalidDocument, path: Path) -> InvalidDocument:
    """The error for a file that is no YAML: `invalid`, unless another builder reads the file."""
    try:
        text = read_regular(path, SIZE_LIMIT).decode("utf-8", "replace")
    except OSError:
        return invalid
    builder = find(text)
    return _error(path, builder) if builder else invalid


def _error(path: Path, builder: Builder) -> InvalidDocument:
    message = f"this is a recipe of {builder.name}, not of particle-os"
    hint = f"start with the output of 'particle-os init'; {builder.instead}"
    source = Source(path)
    source.problem(None, "foreign-recipe", message, hint)
    return source.invalid()

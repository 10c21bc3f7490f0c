"""Recognises the recipes of other image builders, to name them instead of their many mistakes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from particle_os.documents import parsing
from particle_os.documents.document import SIZE_LIMIT, Source
from particle_os.errors import InvalidDocument
from particle_os.recipe.passes import advice
from particle_os.system.regular_file import read_regular

# The most recipes of a directory that a hint names.
NAMED = 10


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


# https://docs.cloud-init.io/en/latest/explanation/format.html
CLOUD_CONFIG = Builder(
    "cloud-init",
    r"\A(## template: jinja\n)?#cloud-config\b",
    "give it to an image with cloud-init, such as that of the recipe 'cloud': 'particle-os run "
    "IMAGE --user-data FILE'; to build it in, write it with the stage files to "
    "/etc/cloud/cloud.cfg.d/NAME.cfg",
)


def find(text: str) -> Builder | None:
    """The builder whose recipe a text is, or cloud-init; None for other texts."""
    known = (CLOUD_CONFIG, *BUILDERS)
    return next((b for b in known if re.search(b.pattern, text, re.MULTILINE)), None)


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
        if path.is_dir():
            raise _directory(path) from None
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


def _directory(path: Path) -> InvalidDocument:
    """The error for a directory in place of a recipe, which names the recipes in it."""
    found = sorted(each.name for each in path.glob("*.yml"))
    names = ", ".join(found[:NAMED]) + (" …" if len(found) > NAMED else "")
    hint = f"name a recipe in it: {names}" if found else "it holds no file *.yml"
    source = Source(path)
    source.problem(None, "unreadable", "this is a directory, and no recipe", hint)
    return source.invalid()


def _error(path: Path, builder: Builder) -> InvalidDocument:
    message = f"this is a recipe of {builder.name}, not of particle-os"
    hint = f"start with the output of 'particle-os init'; {builder.instead}"
    if builder is CLOUD_CONFIG:
        message = f"this is a configuration of {builder.name}, not a recipe"
        hint = builder.instead
    source = Source(path)
    source.problem(None, "foreign-recipe", message, hint)
    return source.invalid()

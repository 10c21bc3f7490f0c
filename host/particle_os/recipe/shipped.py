"""The recipes that particle-os ships: those to start from, and complete examples."""

from __future__ import annotations

import re
from pathlib import Path

from particle_os.architecture import AMD64, ARCHITECTURES, Architecture
from particle_os.errors import UsageError
from particle_os.system.workspace import data_directory

SUFFIX = ".yml"
# The recipe of a directory, which the commands take when none is named.
USUAL = Path("particle-os.yml")
# Lines of shipped recipes: the architecture, the base, what needs a BIOS, the first package of
# systemd, and the stage that writes the disk.
OWN = re.compile(r"^architecture: (\S+)$", re.M)
BASE = re.compile(r"^base-image: .*\n", re.M)
BIOS = re.compile(r"^ *(?:- grub-pc-bin|firmware: \[bios\])\n", re.M)
INIT = re.compile(r"^( +)- systemd-\w+\n", re.M)
DISK = re.compile(r"^( +)- type: qemu\n", re.M)


def shipped() -> dict[str, Path]:
    """The files of the recipes, by their names in alphabetical order."""
    found = data_directory("recipes").rglob(f"*{SUFFIX}")
    return {path.stem: path for path in sorted(found, key=lambda path: path.stem)}


def found_recipe(path: Path) -> Path:
    """The shipped recipe that `path` names, such as 'server', unless it is a file here."""
    is_name = path.name == str(path) and not path.exists()
    return shipped().get(str(path), path) if is_name else path


def written_for(name: str, architecture: Architecture | None, usual: Architecture) -> str:
    """The text of a shipped recipe, for images of an architecture.

    None stands for the usual one, unless the recipe is there for another one. Raises UsageError for
    an architecture that the recipe is not there for.
    """
    text = shipped()[name].read_text(encoding="utf-8")
    found = OWN.search(text)
    own = ARCHITECTURES[found[1]] if found else AMD64
    wanted = architecture or (usual if own is AMD64 else own)
    if wanted is own:
        return text
    if own is not AMD64:
        raise UsageError(f"the recipe '{name}' makes images of {own.name} only")
    return _converted(text, wanted)


def _converted(text: str, architecture: Architecture) -> str:
    """A recipe for amd64 as one for another architecture: its packages, and its boot loader."""
    text = text.replace(AMD64.name, architecture.name)
    if not OWN.search(text):
        text = BASE.sub(rf"\g<0>architecture: {architecture.name}\n", text, count=1)
    if "bios" in architecture.image.firmwares:
        return text
    text = BIOS.sub("", text.replace("BIOS and UEFI", "UEFI"))
    if "boot-loader:" not in text:
        text = INIT.sub(r"\1- systemd-boot\n\g<0>", text, count=1)
        text = DISK.sub(r"\g<0>\1  boot-loader: systemd-boot\n", text, count=1)
    return text

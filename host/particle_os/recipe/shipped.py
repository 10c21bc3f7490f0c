"""The recipes that particle-os ships: those to start from, and complete examples."""

from __future__ import annotations

from pathlib import Path

from particle_os.system.workspace import data_directory

SUFFIX = ".yml"
# The recipe of a directory, which the commands take when none is named.
USUAL = Path("particle-os.yml")


def shipped() -> dict[str, Path]:
    """The files of the recipes, by their names in alphabetical order."""
    found = data_directory("recipes").rglob(f"*{SUFFIX}")
    return {path.stem: path for path in sorted(found, key=lambda path: path.stem)}


def found_recipe(path: Path) -> Path:
    """The shipped recipe that `path` names, such as 'server', unless it is a file here."""
    is_name = path.name == str(path) and not path.exists()
    return shipped().get(str(path), path) if is_name else path

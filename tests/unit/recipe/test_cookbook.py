"""The recipes of docs/cookbook.md are valid, complete and explained."""

import re
from pathlib import Path

import pytest
from particle_os.recipe import loading

TOP = Path(__file__).parents[3]
PAGE = (TOP / "docs/cookbook.md").read_text()
RECIPES = sorted(TOP.glob("docs/cookbook/*.yml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_has_checks(path):
    loaded = loading.load(path)
    assert loaded.recipe.name == path.stem
    assert loaded.recipe.description
    assert loaded.recipe.boot_test.checks
    assert loaded.notes == ()


def test_the_page_explains_each_recipe():
    named = set(re.findall(r"\]\(cookbook/([\w-]+\.yml)\)", PAGE))
    assert named == {path.name for path in RECIPES}


@pytest.mark.parametrize(
    "subject",
    ["Your own service", "A firewall", "Unattended upgrades", "A static network", "Swap",
     "A container host", "A desktop"],
)  # fmt: skip
def test_the_page_has_a_recipe_for_each_subject(subject):
    assert re.search(rf"^## {subject}$.*?\]\([^)]*\.yml\)", PAGE, re.MULTILINE | re.DOTALL)

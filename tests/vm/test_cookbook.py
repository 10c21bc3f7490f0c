"""Every recipe of the cookbook, and each of the program, builds, boots, and holds its checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import TOP, Account, leftovers

# Other tests have these.
ELSEWHERE = ("arm64", "cloud", "minimal-test")
RECIPES = [
    *sorted(TOP.glob("docs/cookbook/*.yml")),
    *(path for path in sorted(TOP.glob("recipes/*.yml")) if path.stem not in ELSEWHERE),
]


@pytest.mark.weekly
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_the_cookbook_boots(account: Account, recipe: Path) -> None:
    output = account.make_directory(f"cookbook-{recipe.stem}")
    written = account.write(account.directory / f"cookbook-{recipe.name}", recipe.read_text())
    outcome = account.run("build", written, "--output", output, "--json", "--progress", "plain")
    assert outcome.status == 0, outcome.stderr
    boots = outcome.json()["boot"]
    assert boots and all(boot["status"] == "passed" for boot in boots)
    assert all(boot["checks"] for boot in boots)
    assert leftovers(account, output) == []

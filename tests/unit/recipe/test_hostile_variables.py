"""Variables that multiply: refused or done with little memory and processor time."""

import pytest

from ...limited import limited

SETUP = "from pathlib import Path\nfrom particle_os.recipe import loading"
ACTION = "loading.load(Path(sys.argv[1]), base='tar:base.tar')"
STAGE = "name: x\nstages:\n  - {type: run, command: ['%s']}\n"

RECIPES = {
    "many references": (f"variables: {{b: x}}\n{STAGE % ('${b}' * 20_000)}", ""),
    "one large value many times": (
        f"variables: {{a: {'x' * 500_000}}}\n{STAGE % ('${a}' * 20_000)}",
        "too-complex",
    ),
    "unknown names": (STAGE % "".join(f"${{a{i}}}" for i in range(20_000)), "unknown-variable"),
    "unclosed": (STAGE % ("${" * 20_000), "bad-variable"),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_takes_little_memory_and_time(tmp_path, recipe):
    text, code = RECIPES[recipe]
    path = tmp_path / "x.yml"
    path.write_text(text)
    assert code in limited(SETUP, ACTION, path)

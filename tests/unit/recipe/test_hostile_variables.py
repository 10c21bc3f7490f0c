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


NAMES = [f"a{number:04}{'x' * 55}" for number in range(4500)]
DECLARED = "".join(f"  {name}: x\n" for name in NAMES)
FILES = {
    "unknown arguments": (
        "name: x\nstages:\n  - include: i.yml\n    with:\n"
        + "".join(f"      b{name}: x\n" for name in NAMES),
        f"variables:\n{DECLARED}stages: []\n",
        "too-many",
    ),
    "unknown variables of conditions": (
        f"variables:\n{DECLARED}name: x\nstages:\n"
        + "".join(f"  - {{when: {{variable: b{name}, is: x}}}}\n" for name in NAMES[:1100]),
        "",
        "too-many",
    ),
    "a large template many times": (
        "name: x\nstages:\n  - type: files\n    files:\n"
        + "".join(
            f"    - {{path: /a{number}, source: t.txt, template: true}}\n" for number in range(2000)
        ),
        "",
        "too-complex",
    ),
    "one variable in many arguments": (
        f"variables:\n{DECLARED}name: x\nstages:\n  - include: i.yml\n    with: {{a: '"
        + "".join(f"${{{name}}}" for name in NAMES)
        + "'}\n  - type: qemu\n",
        "variables: {a: {type: string}}\nstages:\n" + "  - {type: run, script: '${a}'}\n" * 10,
        "",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_recipe_of_several_files_takes_little_memory_and_time(tmp_path, name):
    recipe, included, code = FILES[name]
    (tmp_path / "x.yml").write_text(recipe)
    (tmp_path / "i.yml").write_text(included)
    (tmp_path / "t.txt").write_text("x" * 500_000)
    found = limited(SETUP, ACTION, tmp_path / "x.yml")
    assert len(found) < 2_000_000
    assert code in found


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_takes_little_memory_and_time(tmp_path, recipe):
    text, code = RECIPES[recipe]
    path = tmp_path / "x.yml"
    path.write_text(text)
    assert code in limited(SETUP, ACTION, path)

"""docs/recipes.md has an example of every stage and explains every error code."""

import ast
import re
from pathlib import Path

import pytest
from particle_agent.contract.decode import decode_any, encode
from particle_agent.stages import ALL_STAGES, RECIPE_STAGES, RecipeStage
from particle_os.documents import parsing, validation
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.recipe.names import UNKNOWN_STAGE

from ...sources import ROOTS, nodes

TOP = Path(__file__).parents[3]
GUIDE = (TOP / "docs/recipes.md").read_text()
WRONG = """\
name: My Server
stages:
  - type: apt
    update: true
    package: [curl]
  - type: user
    users: [{name: admin}]
  - type: qemu
    formats: [raw, ova]
    size: 4
boot-tests: {}
"""
LACKING = """\
name: server
stages:
  - type: apt
    packages: [linux-image-cloud-amd64]
  - type: locale
    default: de_DE.UTF-8
  - type: users
    users:
      - name: admin
        groups: [docker]
  - type: qemu
"""


@pytest.mark.parametrize(("text", "first"), [(WRONG, "1:7: name"), (LACKING, "6:14: locale")])
def test_the_errors_that_are_shown_are_those_of_a_recipe(tmp_path, monkeypatch, text, first):
    monkeypatch.chdir(tmp_path)
    Path("server.yml").write_text(text)
    with pytest.raises(InvalidDocument) as raised:
        loading.load(Path("server.yml"))
    shown = re.search(rf"^server\.yml:{first}.*?(?=^```)", GUIDE, re.DOTALL | re.MULTILINE)
    lines = [line for problem in raised.value.problems for line in problem.lines()]
    assert lines == shown[0].splitlines()


def codes(*methods):
    """The constant codes, the second argument, in all calls of the functions `methods`."""
    for path in ROOTS["particle_os"].rglob("*.py"):
        for node in nodes(path.read_text()):
            if isinstance(node, ast.Call) and len(node.args) >= 3:
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called in methods and isinstance(node.args[1], ast.Constant):
                    yield node.args[1].value


def test_every_code_is_explained_and_there_is_no_other():
    section = GUIDE.partition("\n## Errors\n")[2]
    assert explained(section) == {*codes("problem", "complain"), UNKNOWN_STAGE}
    notes = section.partition("Notes are no errors:\n")[2]
    assert explained(notes) == set(codes("note", "_note"))


def explained(section):
    """The codes in the first column of the first table."""
    table = section.partition("| --- | --- |\n")[2].partition("\n\n")[0]
    firsts = [row.split(" | ")[0] for row in table.splitlines()]
    return set(re.findall(r"`([a-z0-9-]+)`", " ".join(firsts)))


EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.M | re.S)


def stages(text, path):
    """The stages of an example, except those with variables or includes."""
    path.write_text(text)
    data = parsing.load(path).data
    found = data.get("stages", ()) if isinstance(data, dict) else data
    return [stage for stage in found if "type" in stage and "${" not in str(stage)]


def test_every_stage_has_an_example(tmp_path):
    found = [stage for text in EXAMPLES for stage in stages(text, tmp_path / "example.yml")]
    missing = {kind.type for kind in RECIPE_STAGES} - {stage["type"] for stage in found}
    assert [f"docs/recipes.md has no example of '{name}'" for name in sorted(missing)] == []


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_the_stages_of_an_example_arrive_in_the_vm_as_they_were_sent(tmp_path, text):
    for data in stages(text, tmp_path / "example.yml"):
        stage = validation.valid(RecipeStage, data)
        assert stage is not None
        assert decode_any(ALL_STAGES, encode(stage)) == stage

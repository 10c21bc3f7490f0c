"""The JSON Schema for editors is valid, and agrees with the validation of recipes."""

import functools
import json
import re
from pathlib import Path

import jsonschema
import pytest
from particle_agent.stages import RECIPE_STAGES
from particle_os.documents import parsing
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.recipe.checks.kinds import KINDS
from particle_os.recipe.description import schema
from particle_os.system.workspace import data_directory

TOP = Path(__file__).parents[4]
RECIPES, INCLUDED = functools.cache(schema.recipes), functools.cache(schema.included)


def blocks(page):
    """The YAML blocks of a page."""
    return re.findall(r"^```yaml\n(.*?)^```$", (TOP / page).read_text(), re.M | re.S)


BLOCKS = [*blocks("README.md"), *blocks("docs/recipes.md")]


def parse(tmp_path, text):
    path = tmp_path / "document.yml"
    path.write_text(text)
    return parsing.load(path).data


def complaints(schema, data):
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(data)]


def test_the_schemas_are_valid_themselves():
    for whole in (schema.recipes(), schema.included()):
        assert whole["$schema"] == jsonschema.Draft7Validator.META_SCHEMA["$schema"]
        jsonschema.Draft7Validator.check_schema(whole)


def test_every_reference_leads_somewhere():
    for whole in (schema.recipes(), schema.included()):
        text = json.dumps(whole)
        assert "$defs" not in text
        wanted = set(re.findall(r'"#/definitions/(\w+)"', text))
        assert wanted <= set(whole["definitions"])


@pytest.mark.parametrize("path", sorted(data_directory("recipes").rglob("*.yml")), ids=str)
def test_the_recipes_of_the_tree_fit(path):
    assert complaints(RECIPES(), parsing.load(path).data) == []


@pytest.mark.parametrize("text", BLOCKS, ids=lambda text: text.splitlines()[0])
def test_the_examples_of_the_guide_fit_and_are_valid(tmp_path, text):
    data = parse(tmp_path, text)
    whole = isinstance(data, dict) and "name" in data
    assert complaints(RECIPES() if whole else INCLUDED(), data) == []
    if not whole:
        declared = "".join(f"  {name}: UTC\n" for name in re.findall(r"\$\{(\w+)\}", text))
        text = f"variables:\n{declared}" if declared else ""
        text += "name: x\nstages:\n  - include: common.yml\n  - type: qemu\n"
        (tmp_path / "document.yml").rename(tmp_path / "common.yml")
    for name in re.findall(r"(?:include|source): (\S+\w)", text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / name).exists():
            (tmp_path / name).write_text("- {type: apt, packages: [linux-image-amd64, init]}\n")
    path = tmp_path / "recipe.yml"
    path.write_text(text)
    for values in loading.images(path):
        assert {note.code for note in loading.load(path, values).notes} <= {
            "left-out",
            "placeholder",
        }


def test_the_guide_has_examples():
    assert len(blocks("README.md")) == 1
    assert len(BLOCKS) > 5


def test_the_examples_of_a_file_of_checks_are_valid_and_have_each_kind(tmp_path):
    path, found = tmp_path / "checks.yml", []
    for text in blocks("docs/boot-test.md"):
        path.write_text(text)
        found.append(loading.load_boot_test(path)[0])
    assert {type(check) for each in found for check in each.checks} == set(KINDS)
    assert any(each.devices.tpm for each in found)
    assert any(each.network for each in found)


VARIED = """\
variables:
  zone: UTC
  count: {type: integer, default: 3, description: How many}
  update: true
  packages: [a, b]
  needed: {type: list}
name: x${zone}
stages:
  - include: common/${zone}.yml
  - {type: apt, update: "${update}", packages: "${packages}"}
  - {type: apt, packages: [curl, "${packages}"], timeout: "${count}m"}
  - {type: timezone, zone: "Europe/${zone}"}
  - {type: users, users: [{name: "a", uid: "${count}", sudo: "${zone}"}]}
  - {type: qemu, formats: ["${zone}"], size: "${count}G"}
boot-test: {checks: [{unit: "${zone}.service"}]}
"""


def test_variables_and_includes_fit(tmp_path):
    assert complaints(RECIPES(), parse(tmp_path, VARIED)) == []


@pytest.mark.parametrize(
    "text",
    [
        "name: x\n",
        "name: X\nstages: [{type: qemu}]\n",
        "name: x\nstages: []\n",
        "name: x\nstages: [{type: qemuu}]\n",
        "name: x\nstages: [{packages: [a]}]\n",
        "name: x\nstages: [{type: apt, packages: [A!]}, {type: qemu}]\n",
        "name: x\nstages: [{type: apt, update: 'yes'}, {type: qemu}]\n",
        "name: x\nstages: [{type: apt, update: 'x${a}'}, {type: qemu}]\n",
        "name: x\nstages: [{type: apt, pakages: []}, {type: qemu}]\n",
        "name: x\nstages: [{type: apt, timeout: 20x}, {type: qemu}]\n",
        "name: x\nstages: [{type: apt, when: {architecture: x86}}, {type: qemu}]\n",
        "name: x\nstages: [{include: a.yml, type: apt}, {type: qemu}]\n",
        "variables: {A: x}\nname: x\nstages: [{type: qemu}]\n",
        "variables: {a: 1.5}\nname: x\nstages: [{type: qemu}]\n",
        "variables: {a: {type: int}}\nname: x\nstages: [{type: qemu}]\n",
        "boot_test: {}\nname: x\nstages: [{type: qemu}]\n",
    ],
)
def test_what_is_wrong_does_not_fit_either(tmp_path, text):
    path = tmp_path / "recipe.yml"
    path.write_text(text)
    (tmp_path / "a.yml").write_text("- {type: apt, packages: [linux-image-amd64, init]}\n")
    with pytest.raises(InvalidDocument):
        loading.load(path)
    assert complaints(RECIPES(), parse(tmp_path, text))


def test_included_files_are_lists_or_mappings_of_stages(tmp_path):
    for text in ("- type: apt\n- include: x.yml\n", "stages: [{type: apt}]\n"):
        assert complaints(INCLUDED(), parse(tmp_path, text)) == []
    for text in ("name: x\nstages: [{type: apt}]\n", "- type: aptt\n", "type: apt\n"):
        assert complaints(INCLUDED(), parse(tmp_path, text))


def test_an_include_with_arguments_and_a_condition_fits(tmp_path):
    include = "{include: x.yml, with: {a: [b]}, when: {variable: v, is: w}}"
    assert complaints(RECIPES(), parse(tmp_path, f"name: x\nstages: [{include}]\n")) == []
    text = f"description: x\nvariables: {{a: {{type: list}}}}\nstages: [{include}]\n"
    assert complaints(INCLUDED(), parse(tmp_path, text)) == []


def test_every_stage_and_option_is_described_for_the_editor():
    definitions = schema.recipes()["definitions"]
    for kind in RECIPE_STAGES:
        definition = definitions[kind.__name__]
        assert definition["description"]
        for option, details in definition["properties"].items():
            name = details.get("$ref", "").rpartition("/")[2]
            assert option == "type" or definitions.get(name, details)["description"]
    assert definitions["Locale"]["properties"]["default"]["examples"] == ["de_DE.UTF-8", "C.UTF-8"]


def test_the_options_of_every_stage_are_written_once():
    definitions = schema.recipes()["definitions"]
    for kind in RECIPE_STAGES:
        properties = definitions[kind.__name__]["properties"]
        for option in schema.common_options():
            own = option in vars(kind)["__annotations__"]
            assert (list(properties[option]) == ["$ref"]) is not own, (kind, option)
    timeout = definitions["StageTimeout"]
    assert timeout["description"]
    assert complaints({**timeout, "definitions": definitions}, "20m") == []
    assert complaints({**timeout, "definitions": definitions}, "20x")


def test_a_stage_with_one_option_adds_few_lines():
    written = json.dumps(schema.recipes()["definitions"]["Hostname"], indent=2)
    assert len(written.splitlines()) <= 50


def test_the_schema_asks_for_the_type_of_a_stage():
    definitions = schema.of_recipes()["$defs"]
    for name in ("Apt", "Locale", "Timezone", "Users", "Qemu"):
        assert "type" in definitions[name]["required"]
        assert definitions[name]["additionalProperties"] is False


def test_every_option_is_described():
    found = schema.of_recipes()
    for name, definition in {"Recipe": found, **found["$defs"]}.items():
        for option, details in definition["properties"].items():
            assert option == "type" or details.get("description"), f"{name}.{option}"

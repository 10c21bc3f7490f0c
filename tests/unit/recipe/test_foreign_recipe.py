"""Recipes of other image builders are named, with what takes their place."""

import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

RECIPES = {
    "debos": "architecture: amd64\nactions:\n  - action: debootstrap\n    suite: trixie\n",
    "debos with a template": '{{- $image := or .image "a.img" -}}\narchitecture: amd64\n'
    "actions:\n  - action: debootstrap\n",
    "mkosi": "[Distribution]\nDistribution=debian\nRelease=trixie\n\n[Output]\nFormat=disk\n",
    "image-builder": 'name = "x"\nversion = "0.0.1"\n\n[[packages]]\nname = "vim"\n',
    "image-builder ": '[customizations]\nhostname = "x"\n',
    "image-builder  ": '{"name": "x", "customizations": {"hostname": "x"}}\n',
    "osbuild": '{"version": "2", "pipelines": [{"name": "build"}]}\n',
    "osbuild ": "version: '2'\npipelines:\n  - name: build\n",
    "KIWI": '<?xml version="1.0"?>\n<image schemaversion="8.0" name="x">\n</image>\n',
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_named_with_what_to_do(tmp_path, name):
    path = tmp_path / "recipe"
    path.write_text(RECIPES[name])
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path)
    (problem,) = raised.value.problems
    assert problem.code == "foreign-recipe"
    assert f"a recipe of {name.split()[0]}" in problem.message
    assert "particle-os init" in problem.hint
    assert "qemu" in problem.hint or "apt" in problem.hint


@pytest.mark.parametrize("text", ["name: x\nactions: y\n", "name: x\nstages: []\n", "[a]\nb=c\n"])
def test_other_mistakes_are_no_foreign_recipe(tmp_path, text):
    path = tmp_path / "recipe.yml"
    path.write_text(text)
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path)
    assert "foreign-recipe" not in [problem.code for problem in raised.value.problems]


@pytest.mark.parametrize("first", ["", "## template: jinja\n"])
def test_a_configuration_of_cloud_init_is_told_where_to_go(tmp_path, first):
    path = tmp_path / "user-data.yml"
    path.write_text(f"{first}#cloud-config\nusers: [a]\n")
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path)
    (problem,) = raised.value.problems
    assert "configuration of cloud-init" in problem.message
    assert "--user-data FILE" in problem.hint
    assert "/etc/cloud/cloud.cfg.d/" in problem.hint


def test_a_directory_names_its_recipes(tmp_path):
    for found, hint in (("", "it holds no file *.yml"), ("b.yml", "name a recipe in it: b.yml")):
        if found:
            (tmp_path / found).write_text("name: b\n")
        with pytest.raises(InvalidDocument) as raised:
            loading.load(tmp_path)
        (problem,) = raised.value.problems
        assert (problem.message, problem.hint) == ("this is a directory, and no recipe", hint)

"""The recipes of `make bench`: a recipe with a fault would end a run of many minutes."""

import pytest
from particle_os.recipe import loading

from ..bench import recipes


@pytest.mark.parametrize("commit", [True, False])
def test_the_commit_and_the_plain_disk_differ_in_the_commit_only(tmp_path, commit):
    path = tmp_path / "edge.yml"
    path.write_text(recipes.edge("1", commit=commit))
    loaded = loading.load(path).recipe
    kinds = [stage.type for stage in loaded.stages]
    assert kinds == ["apt", "network", "files", *(["ostree"] if commit else []), "qemu"]


def test_the_next_version_updates_from_the_first(tmp_path, monkeypatch):
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge/edge.ostree.tar").touch()
    # What is in the file, the VM finds out; here it is empty.
    monkeypatch.setattr("particle_os.recipe.deployment.fault", lambda *arguments: None)
    path = tmp_path / "edge.yml"
    path.write_text(recipes.next_edge("3"))
    loaded = loading.load(path).recipe
    commit = next(stage for stage in loaded.stages if stage.type == "ostree")
    assert commit.version == "2"
    assert commit.parent
    assert loaded.boot_test.upgrade is not None


@pytest.mark.parametrize("name", recipes.MACHINES)
def test_the_same_recipe_is_built_for_each_architecture(tmp_path, name):
    path = tmp_path / f"{name}.yml"
    path.write_text(recipes.for_architecture(name))
    loaded = loading.load(path).recipe
    other = ({"amd64", "arm64"} - {name}).pop()
    assert loaded.architecture == name
    assert other not in path.read_text().partition("stages:")[2]

"""A recipe names files of its own directory only, unless the user allows others."""

import os
from pathlib import Path

import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

STAGE = "  - {type: files, files: [{path: /etc/x, source: '%s'}]}\n"


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe beside a file, below a directory with another file; returns a loader."""
    directory = tmp_path / "recipes"
    (directory / "inner").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (directory / "own").write_text("own")
    (directory / "linked").symlink_to(tmp_path / "secret")
    (directory / "inner" / "back").symlink_to(directory / "own")
    (tmp_path / "stages.yml").write_text("[{type: run, command: [x]}]")
    (directory / "stages.yml").symlink_to(tmp_path / "stages.yml")

    def load(stages, read=loading.load, **options):
        path = directory / "x.yml"
        path.write_text(f"name: x\nstages:\n{stages}")
        try:
            read(path, base="tar:base.tar", **options)
        except InvalidDocument as invalid:
            return [str(p) for p in invalid.problems if "outside" in str(p) or p.code == "no-file"]
        return []

    return load


@pytest.mark.parametrize("name", ["own", "inner/back", "inner/../own", "./own"])
def test_files_of_its_directory_are_taken(recipe, name):
    assert recipe(STAGE % name) == []


@pytest.mark.parametrize("read", [loading.load, loading.resolved])
@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "linked", "inner/../../secret"])
def test_other_files_are_refused_with_the_option_that_allows_them(recipe, name, read):
    (message,) = recipe(STAGE % name, read)
    assert "lies outside of the recipe's directory" in message
    assert "--allow-outside" in message
    assert recipe(STAGE % name, read, allow_outside=True) == []


def test_the_directory_is_named_however_the_recipe_is(recipe, tmp_path, monkeypatch):
    recipe("")
    monkeypatch.chdir(tmp_path / "recipes")
    (tmp_path / "recipes" / "x.yml").write_text(f"name: x\nstages:\n{STAGE % '../secret'}")
    with pytest.raises(InvalidDocument) as raised:
        loading.load(Path("x.yml"), base="tar:base.tar")
    shown = [problem.message for problem in raised.value.problems]
    assert any(f"recipe's directory, {tmp_path / 'recipes'}; --allow" in text for text in shown)


@pytest.mark.parametrize("name", ["../stages.yml", "stages.yml"])
def test_an_included_file_lies_in_the_directory_too(recipe, name):
    (message,) = recipe(f"  - include: {name}\n")
    assert "lies outside of the recipe's directory" in message
    assert recipe(f"  - include: {name}\n", allow_outside=True) == []


def test_a_wrong_stage_gives_no_view_of_other_files(recipe):
    (message,) = recipe("  - {type: files, files: [{path: x, source: ../secret}]}\n")
    assert "lies outside of the recipe's directory" in message


DEBS = "  - {type: apt, debs: ['%s']}\n"


@pytest.fixture
def looked_at(monkeypatch):
    """The directories whose entries the host reads."""
    seen = []
    real = os.scandir

    def scandir(path):
        seen.append(str(Path(path).resolve()))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return seen


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../other", "lies outside"),
        ("../*/*.deb", "lies outside"),
        ("../other/*", "lies outside"),
        ("../../../../../**/*.deb", "lies outside"),
        ("away/*.deb", "lies outside"),
        ("away", "lies outside"),
        ("*/*/x.deb", "no file"),
        ("inn*/../../other/*.deb", "'..' cannot be a part of a pattern"),
        ("**/*.deb", "'**' cannot be a part of a pattern"),
    ],
)
def test_patterns_and_directories_list_nothing_outside(recipe, tmp_path, looked_at, name, reason):
    (tmp_path / "other" / "one").mkdir(parents=True)
    (tmp_path / "other" / "private-name.deb").write_text("")
    (tmp_path / "other" / "one" / "x.deb").write_text("")
    (tmp_path / "recipes" / "away").symlink_to(tmp_path / "other")
    (message,) = recipe(DEBS % name)
    assert reason in message
    assert "private-name" not in message
    assert all(path.startswith(str(tmp_path / "recipes")) for path in looked_at)


def test_a_tree_elsewhere_is_not_listed(recipe, tmp_path, looked_at):
    (tmp_path / "private-name").write_text("")
    (tmp_path / "recipes" / "away").symlink_to(tmp_path)
    for source in ("..", "away"):
        (message,) = recipe(STAGE % source)
        assert "lies outside" in message
        assert "private-name" not in message
    assert str(tmp_path) not in looked_at


def test_the_types_of_stages_outside_are_not_listed(tmp_path, looked_at):
    (tmp_path / "private-name.yml").write_text("[]")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "stages").symlink_to(tmp_path)
    path = tmp_path / "recipes" / "x.yml"
    path.write_text("name: x\nstages: [{type: private-nam}, {type: qemu}]\n")
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path)
    assert "private-name" not in str([*map(str, raised.value.problems)])
    assert str(tmp_path) not in looked_at

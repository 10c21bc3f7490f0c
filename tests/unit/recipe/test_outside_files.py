"""A recipe names files of its own directory only, unless the user allows others."""

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

    def load(stages, **options):
        path = directory / "x.yml"
        path.write_text(f"name: x\nstages:\n{stages}")
        try:
            loading.load(path, base="tar:base.tar", **options)
        except InvalidDocument as invalid:
            return [str(p) for p in invalid.problems if "outside" in str(p) or p.code == "no-file"]
        return []

    return load


@pytest.mark.parametrize("name", ["own", "inner/back", "inner/../own", "./own"])
def test_files_of_its_directory_are_taken(recipe, name):
    assert recipe(STAGE % name) == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "linked", "inner/../../secret"])
def test_other_files_are_refused_with_the_option_that_allows_them(recipe, name):
    (message,) = recipe(STAGE % name)
    assert "lies outside of the recipe's directory" in message
    assert "--allow-outside" in message
    assert recipe(STAGE % name, allow_outside=True) == []


@pytest.mark.parametrize("name", ["../stages.yml", "stages.yml"])
def test_an_included_file_lies_in_the_directory_too(recipe, name):
    (message,) = recipe(f"  - include: {name}\n")
    assert "lies outside of the recipe's directory" in message
    assert recipe(f"  - include: {name}\n", allow_outside=True) == []


def test_a_wrong_stage_gives_no_view_of_other_files(recipe):
    (message,) = recipe("  - {type: files, files: [{path: x, source: ../secret}]}\n")
    assert "lies outside of the recipe's directory" in message

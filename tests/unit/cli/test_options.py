from dataclasses import fields
from pathlib import Path

import pytest
from particle_os.cli.build import build_command
from particle_os.errors import UsageError
from particle_os.jobs.plan import BuildOptions

from .command_line import KERNEL, run


def test_every_option_of_a_build_can_be_given_on_the_command_line():
    declared = {parameter.name for parameter in build_command.params}
    assert {field.name for field in fields(BuildOptions)} <= declared


def test_the_options_of_a_build_become_one_value(tmp_path, monkeypatch):
    seen = []

    def refuse(path, options, **more):
        seen.append(options)
        raise UsageError("seen")

    monkeypatch.setattr("particle_os.cli.build.make_plan", refuse)
    one = lambda recipes, options: [(path, options) for path in recipes]  # noqa: E731
    monkeypatch.setattr("particle_os.cli.build.images", one)
    for name in ("SOURCE_DATE_EPOCH", "PARTICLE_OS_MIRROR", "PARTICLE_OS_APT_PROXY"):
        monkeypatch.delenv(name, raising=False)
    run("build", "recipe.yml")
    run(
        "build", "recipe.yml", "--output", tmp_path, "--no-cache", "--no-boot-test",
        "--max-age", "2", "--scratch-size", "1G", "--memory", "3G", "--set", "a=b",
    )  # fmt: skip
    usual, given = seen
    assert usual == BuildOptions(output_directory=Path("out"))
    assert given == BuildOptions(
        output_directory=tmp_path, cache=False, boot_test=False, max_age=7200, scratch=1 << 30,
        memory=3 << 30, variables={"a": "b"},
    )  # fmt: skip


@pytest.mark.parametrize("command", ["boot-test", "run"])
def test_a_recipe_in_place_of_an_image_is_told(recipe, command):
    result = run(command, recipe)
    assert result.exit_code == 2
    assert f"build an image from it: particle-os build {recipe}" in result.stderr.replace("\n", " ")


@pytest.mark.parametrize("command", ["build", "validate", "shell"])
def test_an_image_in_place_of_a_recipe_is_told(tmp_path, command):
    image = tmp_path / "x.raw"
    image.write_bytes(bytes(4096))
    result = run(command, image)
    assert result.exit_code == 2
    assert f"particle-os boot-test {image}" in result.stderr


def test_variables_are_for_recipes(tmp_path):
    image = tmp_path / "x.raw"
    image.write_bytes(bytes(4096))
    result = run("inspect", "--set", "a=b", image)
    assert result.exit_code == 2
    assert "--set is for recipes" in result.stderr


def test_a_directory_without_tests_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("particle_os.boot.frameworks.testinfra.is_installed", lambda: True)
    image = tmp_path / "x.raw"
    image.write_bytes(bytes(4096))
    for given, told in ((tmp_path, "holds no tests"), (image, "is a file")):
        result = run("boot-test", image, "--testinfra", given)
        assert result.exit_code == 2
        assert told in result.stderr


@pytest.mark.parametrize(
    ("given", "meant"), [("4GB", "'4G'"), ("512MiB", "'512M'"), ("4 gb", "'4G'"), ("lots", None)]
)
def test_a_size_of_another_form_is_understood(recipe, given, meant):
    shown = run("build", "--dry-run", "--memory", given, recipe).output
    assert f"found '{given}'" in shown
    assert ("did you mean" in shown) == (meant is not None)
    assert meant is None or meant in shown


def test_a_secret_that_is_not_permitted_has_a_place_and_a_next_step(tmp_path):
    recipe = tmp_path / "r.yml"
    stages = [KERNEL, "{type: run, command: [a], secrets: [{name: t, env: T}]}", "{type: qemu}"]
    recipe.write_text("name: x\nstages:\n" + "".join(f"  - {stage}\n" for stage in stages))
    done = run("build", "--dry-run", recipe)
    assert done.exit_code == 2
    assert "secret 't': the recipe asks for the environment variable T" in done.output
    assert f"{recipe}:4" in done.output
    assert "permit it with --allow-env T." in " ".join(done.output.split())


def test_an_option_that_belongs_to_another_stage_is_explained_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "is an option of the stage 'sources'" in run("explain", "apt.components").output
    assert "Name a recipe" in run("inspect", "nosuch", "--resolved").output

import json
import re

import pytest
from particle_os.architecture import AMD64, ARM64
from particle_os.cli import init
from particle_os.recipe import loading
from particle_os.recipe.shipped import shipped
from particle_os.system.workspace import data_directory

from .command_line import run

LISTED = [row["name"] for row in json.loads(run("list", "--json").stdout)]


@pytest.mark.parametrize("template", LISTED)
def test_what_init_writes_is_valid(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("init", template).exit_code == 0
    written = tmp_path / f"{template}.yml"
    result = run("validate", written)
    assert (result.exit_code, result.stdout) == (0, "1 valid\n")
    # The only note is that the key of the template belongs to no user yet.
    assert result.stderr.count("note:") == result.stderr.count("[placeholder]")
    assert ("placeholder" in result.stderr) == (template in ("server", "simple-server"))
    assert "schema.json\n# " not in written.read_text()


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("name", LISTED)
def test_build_and_validate_take_the_names_that_are_listed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("validate", name).stdout == "1 valid\n"
    assert json.loads(run("build", name, "--dry-run", "--json").stdout)["recipe"] == name


def test_a_file_goes_before_a_name(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe.rename("server")
    assert json.loads(run("build", "server", "--dry-run", "--json").stdout)["recipe"] == "test"
    assert run("validate", "no-such-name").exit_code == 2


def test_init_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"container", "minimal", "server", "cloud"} <= set(LISTED)
    (tmp_path / "minimal.yml").write_text("mine")
    assert run("init").exit_code == 2
    assert (tmp_path / "minimal.yml").read_text() == "mine"
    (tmp_path / "link.yml").symlink_to("elsewhere.yml")
    assert run("init", "--output", "link.yml").exit_code == 2
    assert not (tmp_path / "elsewhere.yml").exists()
    assert run("init", "--output", "no-directory/x.yml").exit_code == 2
    assert run("init", "--output", "other.yml", "-q").stdout == ""
    assert (tmp_path / "other.yml").exists()


def test_init_can_print_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = (data_directory("recipes/templates") / "server.yml").read_text()
    assert run("init", "server", "--output", "-", "--architecture", "amd64").stdout == written
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("template", LISTED)
def test_init_writes_a_recipe_for_arm64_too(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("init", template, "--architecture", "arm64").exit_code == 0
    written = (tmp_path / f"{template}.yml").read_text()
    result = run("validate", f"{template}.yml")
    assert (result.exit_code, result.stdout) == (0, "1 valid\n")
    assert result.stderr.count("note:") == result.stderr.count("[placeholder]")
    loaded = loading.load(tmp_path / f"{template}.yml")
    assert loaded.architecture is ARM64
    assert loaded.firmwares[0] == "uefi"
    if template != "arm64":
        assert not {"amd64", "BIOS"} & {*re.findall(r"\w+", written)}


@pytest.mark.parametrize("template", LISTED)
def test_init_writes_the_shipped_recipe_unless_another_architecture_is_wanted(
    template, monkeypatch
):
    written = shipped()[template].read_text().removeprefix(init.SCHEMA_LINE)
    monkeypatch.setattr(init, "usual", lambda: AMD64)
    assert run("init", template, "-o", "-").stdout == written
    own = "arm64" if template == "arm64" else "amd64"
    monkeypatch.setattr(init, "usual", lambda: ARM64)
    assert run("init", template, "-o", "-", "--architecture", own).stdout == written
    on_arm64 = run("init", template, "-o", "-").stdout
    assert "\narchitecture: arm64\n" in on_arm64
    assert (on_arm64 == written) == (template == "arm64")


def test_a_recipe_for_arm64_is_none_for_amd64():
    result = run("init", "arm64", "-o", "-", "--architecture", "amd64")
    assert result.exit_code == 2
    assert "the recipe 'arm64' makes images of arm64 only" in result.stderr


def test_init_knows_its_templates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("init", "sever")
    assert result.exit_code == 2
    assert "did you mean 'server'?" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_init_says_what_it_wrote_and_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run("init", "--output", "a.yml").stdout
    assert said == "a.yml written; build it with: particle-os build a.yml\n"
    assert json.loads(run("init", "--output", "b.yml", "--json").stdout) == {"path": "b.yml"}
    result = run("init", "--output", "a.yml")
    assert "a.yml is there already" in result.stderr
    assert "Name another with --output." in result.stderr
    missing = run("init", "--output", "no-directory/x.yml").stderr
    assert "no-directory/x.yml cannot be written: No such file or directory" in missing

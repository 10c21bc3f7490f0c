import json
import sys

import pytest

from .command_line import run


@pytest.fixture
def settings(own_settings):
    """Writes the user's config.toml."""

    def write(text):
        own_settings.parent.mkdir(parents=True, exist_ok=True)
        own_settings.write_text(text)
        return own_settings

    return write


def test_the_file_sets_options_below_the_environment_and_the_command_line(
    settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings("[init]\njson = true\noutput = 'a.yml'\n[cache.list]\njson = true\n")
    assert json.loads(run("init").stdout) == {"path": "a.yml"}
    assert json.loads(run("cache", "list").stdout) == []
    monkeypatch.setenv("PARTICLE_OS_INIT_OUTPUT", "b.yml")
    assert json.loads(run("init").stdout) == {"path": "b.yml"}
    assert json.loads(run("init", "-o", "c.yml").stdout) == {"path": "c.yml"}


@pytest.mark.usefixtures("nothing_starts")
def test_every_kind_of_option_can_be_set(settings, recipe):
    settings(
        "[build]\nmemory = '3G'\ncpus = 3\nno-cache = true\nset = []\nallow-env = ['X']\n"
        "dry-run = true\n[stage.run]\nbase = 'mmdebstrap:trixie'\n"
    )
    result = run("build", recipe)
    assert result.exit_code == 0
    assert "mmdebstrap:trixie" in result.stdout


@pytest.mark.parametrize(
    ("text", "brief", "where", "hint"),
    [
        ("[builf]\n", "there is no command 'builf'", "", "did you mean 'build'?"),
        ("[cache.prun]\n", "no command 'prun'", ", [cache]", "did you mean 'prune'?"),
        ("[build]\nmemroy='2G'\n", "no option 'memroy'", ", [build]", "did you mean 'memory'?"),
        ("build = 1\n", "'build' is no table", "", "Write [build] in a line"),
        ("[build]\nmemory=2\n", "'memory': expected a text", ", [build]", "help build"),
        ("[build]\nmemory='x'\n", "'memory': expected a size", ", [build]", "help build"),
        ("[build]\ncpus=0\n", "'cpus': 0 is not in the range", ", [build]", "help build"),
        ("[build]\ncpus=true\n", "'cpus': expected a number", ", [build]", "help build"),
        ("[build]\nplain='yes'\n", "'plain': expected true or", ", [build]", "help build"),
        ("[build]\nset='a=b'\n", "'set': expected a list", ", [build]", "help build"),
        ("[build\n", "no valid TOML", "", "memory ="),
    ],
)
def test_a_wrong_file_is_an_error_with_its_place_and_advice(settings, text, brief, where, hint):
    path = settings(text)
    result = run("version")
    assert (result.exit_code, result.stdout) == (2, "")
    assert brief in result.stderr
    assert f"where: {path}{where}\n" in result.stderr
    assert hint in result.stderr.partition("do:")[2]


def test_a_file_that_cannot_be_read_is_named(settings):
    path = settings("")
    path.unlink()
    path.mkdir()
    result = run("version")
    assert result.exit_code == 2
    assert f"{path} cannot be read" in result.stderr


@pytest.mark.slow
def test_doctor_says_which_file_was_read(settings, own_settings):
    assert f"values for options: none; {own_settings} would be read" in run("doctor").stdout
    settings("[doctor]\nquiet = false\n")
    assert f"values for options: {own_settings} was read" in run("doctor").stdout


def test_a_wrong_file_stops_no_command_that_helps_to_mend_it(settings, monkeypatch):
    settings("[build]\nnonsense = 1\n")
    for words in (["--help"], ["help"], ["build", "--help"], ["completion", "bash"]):
        monkeypatch.setattr(sys, "argv", ["particle-os", *words])
        result = run(*words)
        assert (result.exit_code, result.stderr) == (0, "")
    shown = run("doctor").stdout
    assert "MISSING  values for options: " in shown
    assert "there is no option 'nonsense'" in shown

"""The generated files match the sources, and `make generate` finds every stage."""

import shutil
import subprocess
import tomllib

import pytest
from particle_agent.stages import ALL_STAGES, RECIPE_STAGES

from tests import generate

TOP = generate.TOP
MOTD = '''\
from dataclasses import dataclass
from typing import Literal

from particle_agent.stages.base import StageOptions


@dataclass(frozen=True, kw_only=True)
class Motd(StageOptions):
    """Writes /etc/motd."""

    type: Literal["motd"] = "motd"
'''


@pytest.fixture
def tree(tmp_path):
    """A tree with a copy of the stages and nothing else."""
    shutil.copytree(generate.TOP / generate.STAGES, tmp_path / generate.STAGES)
    return tmp_path


def add(tree, text, name="motd"):
    (tree / generate.STAGES / f"settings/{name}.py").write_text(text)


def test_no_generated_file_is_stale():
    found = [str(path) for path, _ in generate.stale(generate.TOP)]
    assert found == [], "run 'make generate'"


def test_every_command_has_a_manual_page_and_no_other_page_lies_there():
    written = {path.name for path in (TOP / generate.MANUAL).iterdir()}
    assert written == set(generate.manual())
    shared = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    places = shared["targets"]["wheel"]["shared-data"]
    assert places.pop(generate.MANUAL) == "share/man/man1"
    names = {f"{generate.COMPLETIONS}/{name}" for name in generate.completions()}
    assert set(places) == names
    assert {"particle-os.1", "particle-os-build.1", "particle-os-stage-run.1"} <= written


@pytest.mark.slow
def test_man_takes_every_page():
    for path in (TOP / generate.MANUAL).iterdir():
        words = ["man", "--warnings=all", "-E", "UTF-8", "-l", path]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert "DESCRIPTION" in done.stdout


def test_a_manual_page_has_the_groups_and_the_variables():
    page = generate.manual()["particle-os-build.1"]
    assert '.SH "THE VIRTUAL MACHINE"' in page
    assert "\\fB\\-o\\fR, \\fB\\-\\-output\\fR" in page
    assert "PARTICLE_OS_BUILD_MEMORY" in page


def test_the_registry_has_every_stage():
    found = generate.stages(generate.TOP)
    assert [stage.type for stage in found if stage.in_recipes] == [k.type for k in RECIPE_STAGES]
    assert {stage.type for stage in found} == {kind.type for kind in ALL_STAGES}
    assert [stage.type for stage in found if not stage.in_recipes] == [
        "bootstrap",
        "export",
        "publish",
    ]


def test_a_stage_is_found_where_it_lies(tree):
    add(tree, MOTD)
    text = generate.registry(tree)
    assert "from particle_agent.stages.settings.motd import Motd\n" in text
    assert "    | Motd\n" in text


def test_the_registry_needs_no_stage_that_can_be_imported(tree):
    add(tree, f"import no_such_module\n{MOTD}")
    assert "Motd" in generate.registry(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MOTD.replace('    type: Literal["motd"] = "motd"\n', ""), "has no name in recipes"),
        (
            MOTD.replace("motd", "apt"),
            r"two stages are called 'apt', in particle_agent\.stages\.settings\.motd and "
            r"particle_agent\.stages\.software\.apt: rename",
        ),
        (MOTD.replace("Motd", "Apt"), r"two stages are called 'Apt', in .*motd and .*apt: rename"),
        (MOTD.replace('= "motd"', '= "mtod"'), r"motd: Motd has the name 'mtod', but the type Lit"),
        (MOTD.replace('Literal["motd"]', "str"), r"motd: Motd has .*, but the type str: write"),
        (f"{MOTD}    text: Text\n", r"settings\.motd: Motd\.text: 'Text' is not defined: import"),
        (
            f"if TYPE_CHECKING:\n    from x import Text\n{MOTD}    text: tuple[Text, ...]\n",
            r"Motd\.text: 'Text' is not defined",
        ),
        (
            f"{MOTD}    lines: list[str]\n",
            r"Motd\.lines: 'list' can change: use tuple\[X, \.\.\.\]",
        ),
        (f"{MOTD}    lines: set[str] | None = None\n", r"Motd\.lines: 'set' can change"),
        (f"{MOTD}class Line(Options):\n    words: list[str]\n", r"Line\.words: 'list' can change"),
    ],
)
def test_an_unclear_stage_is_an_error(tree, text, message):
    add(tree, text)
    with pytest.raises(generate.UnclearStage, match=message):
        generate.registry(tree)


def test_the_check_looks_for_stale_files_before_it_runs_mypy():
    recipe = (TOP / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    steps = ["tests/generate.py --check", "/mypy"]
    assert sorted(steps, key=recipe.index) == steps


def test_a_changed_file_is_stale_and_is_written_at_once(tree):
    path = tree / generate.STAGES / "registry.py"
    right = path.read_text()
    path.write_text("# wrong\n")
    (stale, content) = next(generate.stale(tree))
    generate.write(stale, content)
    assert (stale, path.read_text()) == (path, right)
    assert list(path.parent.glob("*.new")) == []


@pytest.mark.slow
def test_the_program_lists_stale_files_and_writes_them(tree, monkeypatch, capsys):
    monkeypatch.setattr(generate, "TOP", tree)
    for name in ("recipes", "docs", "host/completions", "debian"):
        shutil.copytree(TOP / name, tree / name)
    shutil.copy(TOP / "CHANGELOG.md", tree)
    (tree / "docs/checks.md").write_text("")
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "docs/checks.md: stale: run 'make generate'\n"
    assert generate.main([]) == 0
    assert capsys.readouterr().out == "docs/checks.md: written\n"
    assert generate.main(["--check"]) == 0


def test_the_program_names_an_unclear_stage(tree, monkeypatch, capsys):
    monkeypatch.setattr(generate, "TOP", tree)
    add(tree, MOTD.replace("motd", "apt"))
    assert generate.main([]) == 2
    assert capsys.readouterr().err.startswith("generate: two stages are called 'apt'")

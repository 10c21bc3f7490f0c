"""The generated files match the sources, and `make generate` finds every stage."""

import shutil

import pytest
from particle_agent.stages import ALL_STAGES, RECIPE_STAGES

from tests import generate

TOP = generate.TOP
MOTD = '''\
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


def test_the_registry_has_every_stage():
    found = generate.stages(generate.TOP)
    assert [stage.type for stage in found if stage.in_recipes] == [k.type for k in RECIPE_STAGES]
    assert {stage.type for stage in found} == {kind.type for kind in ALL_STAGES}
    assert [stage.type for stage in found if not stage.in_recipes] == ["bootstrap", "export"]


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
        (MOTD.replace("motd", "apt"), "two stages are called 'apt'"),
        (MOTD.replace("Motd", "Apt"), "two stages are called 'Apt'"),
    ],
)
def test_an_unclear_stage_is_an_error(tree, text, message):
    add(tree, text)
    with pytest.raises(generate.UnclearStage, match=message):
        generate.registry(tree)


def test_a_changed_file_is_stale_and_is_written_at_once(tree):
    path = tree / generate.STAGES / "registry.py"
    right = path.read_text()
    path.write_text("# wrong\n")
    (stale, content) = next(generate.stale(tree))
    generate.write(stale, content)
    assert (stale, path.read_text()) == (path, right)
    assert list(path.parent.glob("*.new")) == []


def test_the_program_lists_stale_files_and_writes_them(tree, monkeypatch, capsys):
    monkeypatch.setattr(generate, "TOP", tree)
    for name in ("recipes", "docs"):
        shutil.copytree(TOP / name, tree / name)
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

import json
from collections import Counter

import pytest
from particle_agent.stages.software.apt import Apt
from particle_os.documents import parsing

from .command_line import KERNEL, run


def test_validate_tells_how_many_are_valid(recipe):
    result = run("validate", recipe, recipe)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 valid\n", "")
    assert run("validate", "-q", recipe).stdout == ""


def test_validate_tells_the_errors_of_several_files(recipe, bad_recipe, tmp_path):
    result = run("validate", bad_recipe, recipe, tmp_path / "missing.yml")
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.rpartition("[")[2] for line in lines if line.startswith("/")] == [
        "missing-key]",
        "unknown-key]",
        "bad-value]",
        "unreadable]",
    ]
    assert lines[4:8] == [
        f"{bad_recipe}:1:1: unknown key 'nam' [unknown-key]",
        "  | nam: x",
        "  | ^",
        "  do:    did you mean 'name'?",
    ]


def test_a_value_is_for_the_recipes_that_declare_it(recipe, tmp_path):
    other = tmp_path / "other.yml"
    other.write_text("name: other\nvariables: {port: 80}\nstages: [{type: nonsense}]\n")
    result = run("validate", recipe, other, "--set", "port=81")
    assert result.exit_code == 2
    assert "no stage 'nonsense'" in result.stderr
    assert "port" not in result.stderr
    for wrong in ("prot=81", "prot+=81"):
        result = run("validate", recipe, other, "--set", wrong)
        assert (result.exit_code, "no variable 'prot'" in result.stderr) == (2, True)


def test_validate_tells_the_errors_as_json(bad_recipe):
    result = run("validate", "--json", bad_recipe)
    assert result.exit_code == 2
    problems = json.loads(result.stdout)["problems"]
    assert problems[1] == {
        "path": str(bad_recipe),
        "line": 1,
        "column": 1,
        "code": "unknown-key",
        "message": "unknown key 'nam'",
        "hint": "did you mean 'name'?",
    }


def test_validate_tells_the_errors_as_annotations(tmp_path):
    path = tmp_path / "a,b:c%.yml"
    path.write_text("nam: x\nstages:\n  - {type: org.osbuild.debian.qemu, size: '%\\r'}\n")
    result = run("validate", "--format", "github", path)
    assert result.exit_code == 2
    file = f"{tmp_path}/a%2Cb%3Ac%25.yml"
    assert result.stdout.splitlines() == [
        f"::error file={file},line=1,col=1,title=missing-key::the key 'name' is missing"
        " (add it, see 'particle-os explain recipe')",
        f"::error file={file},line=1,col=1,title=unknown-key::"
        "unknown key 'nam' (did you mean 'name'?)",
        f"::error file={file},line=3,col=43,title=bad-value::size: expected 'auto', 'minimal', or a"
        " size in M or G (powers of 1024) such as '800M' or '4G', found \"%25\\\\r\""
        " (see 'particle-os explain qemu')",
        f"::notice file={file},line=3,col=6,title=older-form::'org.osbuild.debian.qemu' is called "
        "'qemu' now: write 'type: qemu'",
    ]


def test_validate_tells_notes_without_failing(tmp_path):
    path = tmp_path / "old.yml"
    path.write_text(f"name: x\nstages:\n  - {KERNEL}\n  - {{type: org.osbuild.debian.qemu}}\n")
    result = run("validate", path, path)
    assert result.exit_code == 0
    assert result.stdout == "2 valid\n"
    assert result.stderr.startswith(f"note: {path}:4:6: ")
    assert len(result.stderr.splitlines()) == 1
    assert run("validate", "-q", path).stderr == ""
    told = json.loads(run("validate", "--json", path).stdout)
    assert told["problems"] == []
    assert [note["code"] for note in told["notes"]] == ["older-form"]
    shown = run("validate", "--format", "github", path).stdout
    assert shown.startswith(f"::notice file={path},line=4,col=6,title=older-form::")


def test_an_error_in_a_file_that_several_recipes_include_is_told_once(tmp_path):
    (tmp_path / "common.yml").write_text("- {type: apt, pakages: []}\n")
    paths = [tmp_path / "a.yml", tmp_path / "b.yml"]
    for path in paths:
        path.write_text("name: x\nstages:\n  - include: common.yml\n  - type: qemu\n")
    result = run("validate", *paths)
    assert result.stderr.splitlines() == [
        f"{tmp_path}/common.yml:1:15: unknown key 'pakages' [unknown-key]",
        "  | - {type: apt, pakages: []}",
        "  |               ^",
        "  do:    did you mean 'packages'?",
    ]


def test_variables_are_set_on_the_command_line(tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text(
        f"variables: {{n: {{type: integer}}}}\nname: x${{n}}\nstages: [{KERNEL}, {{type: qemu}}]\n"
    )
    assert run("validate", path).exit_code == 2
    assert run("validate", path, "--set", "n=5").exit_code == 0
    plan = json.loads(run("build", path, "--dry-run", "--json", "--set", "n=7").stdout)
    assert plan["recipe"] == "x7"
    for wrong in ("n", "=5", "n=x", "m=5"):
        result = run("validate", path, "--set", wrong)
        assert result.exit_code == 2
        assert "--set" in result.stderr
    assert run("validate", path, "--set", "n=1", "--set", "n=2").exit_code == 2


MANY = "".join(f"wrong{n}: 1\n" for n in range(10))


def test_problems_of_one_kind_are_folded_but_not_for_programs(tmp_path):
    path = tmp_path / "many.yml"
    path.write_text(f"name: many\nstages:\n  - {KERNEL}\n  - type: qemu\n{MANY}")
    for command in (["validate"], ["build", "--dry-run"]):
        shown = run(*command, path).stderr
        assert shown.count("unknown key") == 3
        assert "\n  and 7 more like it, in lines 8, 9, 10, 11, 12, 13, 14\n" in shown
    assert run("validate", path, "-v").stderr.count("unknown key") == 10
    assert len(json.loads(run("validate", path, "--json").stdout)["problems"]) == 10
    assert len(json.loads(run("build", path, "--json").stderr)["problems"]) == 10
    assert run("validate", path, "--format", "github").stdout.count("::error ") == 10


def test_notes_of_one_kind_are_folded_but_not_for_programs(tmp_path):
    path = tmp_path / "notes.yml"
    arm = "  - {type: apt, packages: [nano], when: {architecture: arm64}}\n"
    path.write_text(f"name: notes\nstages:\n  - {KERNEL}\n{arm * 10}  - type: qemu\n")
    for command, stream in ((["validate"], "stderr"), (["build", "--dry-run"], "stdout")):
        shown = getattr(run(*command, path), stream)
        assert shown.count("left out") == 3
        assert "\nnote: and 7 more like it, in lines 7, 8, 9" in shown
        result = json.loads(run(*command, path, "--json").stdout)
        assert len(result["notes"]) == 10


def test_the_name_of_a_shipped_recipe_that_is_misspelt_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("validate", "build", "shell"):
        result = run(command, "minimla")
        assert result.exit_code == 2
        assert "did you mean 'minimal'?" in result.stderr


@pytest.fixture
def reads(monkeypatch):
    """The number of times that each file is parsed, by its name."""
    found, load = Counter(), parsing.load

    def counted(path):
        found[path.name] += 1
        return load(path)

    monkeypatch.setattr(parsing, "load", counted)
    return found


def test_each_file_is_read_once(tmp_path, reads):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "site.yml").write_text("[{type: hostname, hostname: x}]\n")
    stages = f"stages: [{KERNEL}, {{type: site}}, {{type: site}}, {{type: qemu}}]\n"
    (tmp_path / "plain.yml").write_text(f"name: plain\n{stages}")
    matrix = "variables: {a: 1}\nmatrix: {a: [1, 2, 3]}\n"
    (tmp_path / "several.yml").write_text(f"name: several\n{matrix}{stages}")
    names = ["plain.yml", "several.yml"]
    result = run("validate", *(tmp_path / name for name in names))
    assert result.exit_code == 0, result.stderr
    # Each of the four images includes the file twice.
    assert reads == {"plain.yml": 1, "several.yml": 1, "site.yml": 4}


def test_a_need_that_is_met_once_is_not_looked_for_again(tmp_path, monkeypatch):
    asked, answer = Counter(), Apt.may_bring

    def counted(stage, need):
        asked[need.what] += 1
        return answer(stage, need)

    monkeypatch.setattr(Apt, "may_bring", counted)
    apt = "{type: apt, packages: [linux-image-amd64, systemd-sysv, sudo]}"
    users = "{type: users, users: [{name: a, sudo: password}]}"
    recipe = tmp_path / "long.yml"
    lines = [f"  - {stage}\n" for stage in (apt, *[users, apt] * 30, "{type: qemu}")]
    recipe.write_text(f"name: long\nstages:\n{''.join(lines)}")
    result = run("validate", recipe)
    assert result.exit_code == 0, result.stderr
    assert asked["package sudo"] == 1
    assert max(asked.values()) == 1

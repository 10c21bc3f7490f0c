import json
import os
import stat

import pytest
from particle_agent.contract.decode import encode
from particle_agent.stages.accounts.users import User, Users
from particle_agent.stages.base import Secret
from particle_agent.stages.contents.run import Run
from particle_os.documents.document import Mark
from particle_os.errors import InvalidDocument, UsageError
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan
from particle_os.recipe import loading
from particle_os.recipe.parameters import secrets

from ..cli.command_line import run

RECIPE = """\
name: test
stages:
  - type: run
    command: [cat, /run/secrets/token]
    secrets:
      - name: token
        env: TOKEN
      - name: key
        file: key.pem
  - type: qemu
"""


@pytest.fixture
def recipe_path(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "r.yml"
    path.write_text(RECIPE)
    return path


def place(tmp_path):
    return Mark(tmp_path / "r.yml", 3, 5)


def resolve(tmp_path, environment, *named):
    stages = (Run(command=("true",), secrets=named),)
    return secrets.resolve(stages, [place(tmp_path)], all_of(tmp_path, environment), tmp_path)


def all_of(directory, environment):
    return secrets.SecretSources(environment, {"A", "B", "C", "NOTSET", "SHORT"}, directory)


def test_a_plan_has_the_values_and_its_stages_have_not(recipe_path, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter22")
    (tmp_path / "key.pem").write_text("line one\nline two\n")
    plan = make_plan(recipe_path, BuildOptions(output_directory=tmp_path, allow_env=("TOKEN",)))
    assert sorted(plan.secrets.values()) == [b"hunter22", b"line one\nline two"]
    assert plan.secrets_of(plan.stages[0]) == plan.secrets
    assert plan.secrets_of(plan.stages[1]) == {}
    for text in (json.dumps([encode(s) for s in plan.stages]), repr(plan)):
        assert "hunter22" not in text
        assert "line one" not in text


def test_a_recipe_is_valid_without_values_for_its_secrets(recipe_path):
    assert loading.load(recipe_path, base="tar:base.tar").recipe.name == "test"


def test_the_name_follows_from_the_value_and_from_the_user(tmp_path):
    one, two = Secret(name="a", env="A"), Secret(name="a", env="B")
    (first,), values = resolve(tmp_path, {"A": "same", "B": "same"}, one, two)
    assert first.secrets[0] == first.secrets[1]
    assert list(values.values()) == [b"same"]
    (other,), _ = resolve(tmp_path, {"A": "another"}, one)
    assert other.secrets[0] != first.secrets[0]
    key = tmp_path / secrets.KEY
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.unlink()
    assert resolve(tmp_path, {"A": "same"}, one)[0][0].secrets[0] != first.secrets[0]


@pytest.mark.parametrize(
    ("named", "environment", "message"),
    [
        (Secret(name="a", env="A"), {}, "secret 'a': the environment variable A is not set"),
        (Secret(name="a", file="none"), {}, "none cannot be read: No such file"),
        (Secret(name="a", file="."), {}, "cannot be read: not a regular file"),
        (Secret(name="a", env="A"), {"A": "abc\n"}, "A holds 3 bytes; a secret needs from 4 to"),
        (Secret(name="a", env="A"), {"A": "x" * 65537}, "A holds 65537 bytes"),
    ],
)
def test_a_secret_without_a_usable_value_is_reported(tmp_path, named, environment, message):
    with pytest.raises(UsageError, match="secret 'a'") as raised:
        resolve(tmp_path, environment, named)
    assert message in raised.value.brief


def test_all_missing_secrets_are_reported_together(tmp_path):
    named = Secret(name="a", env="A"), Secret(name="b", file="none"), Secret(name="c", env="C")
    with pytest.raises(UsageError, match="2 secrets have no value") as raised:
        resolve(tmp_path, {"A": "there"}, *named)
    assert [line.split("'")[1] for line in raised.value.tail] == ["b", "c"]


def test_a_secret_comes_from_one_place(recipe_path):
    for text in (RECIPE.replace("env: TOKEN", "env: TOKEN\n        file: x"),
                 RECIPE.replace("        env: TOKEN\n", "")):  # fmt: skip
        recipe_path.write_text(text)
        with pytest.raises(InvalidDocument) as raised:
            loading.load(recipe_path, base="tar:base.tar")
        assert "write either 'file' or 'env'" in raised.value.problems[0].message


def test_a_stage_that_insists_on_a_secret_without_a_value_is_reported_like_any_other(tmp_path):
    first, second = Secret(name="a", env="NOTSET"), Secret(name="b", env="SHORT")
    stages = (
        Users(users=(User(name="u", password_secret="a"),), secrets=(first,)),
        Users(users=(User(name="v", password_secret="b"),), secrets=(second,)),
    )
    with pytest.raises(UsageError, match=r"^2 secrets have no value$") as raised:
        given = all_of(tmp_path, {"SHORT": "abc"})
        secrets.resolve(stages, [place(tmp_path)] * 2, given, tmp_path)
    where = f"{tmp_path / 'r.yml'}:3: "
    assert raised.value.tail[0] == f"{where}secret 'a': the environment variable NOTSET is not set"
    assert raised.value.tail[1].startswith(
        f"{where}secret 'b': the environment variable SHORT holds 3 bytes"
    )
    with pytest.raises(
        UsageError, match=r"^secret 'a': the environment variable NOTSET is not set"
    ):
        secrets.resolve(stages[:1], [place(tmp_path)], all_of(tmp_path, {}), tmp_path)


@pytest.mark.parametrize("name", ["../key", "linked", "inner/../../key", "absolute"])
def test_a_recipe_takes_no_file_outside_of_its_directory_for_a_secret(tmp_path, name):
    directory = tmp_path / "recipes"
    (directory / "inner").mkdir(parents=True)
    (tmp_path / "key").write_text("private key")
    (directory / "linked").symlink_to(tmp_path / "key")
    secret = Secret(name="a", file=str(tmp_path / "key") if name == "absolute" else name)
    with pytest.raises(UsageError, match=r"--allow-outside permits that") as raised:
        resolve(directory, {}, secret)
    assert "lies outside of the recipe's directory" in raised.value.brief
    stages, anywhere = (
        (Run(command=("true",), secrets=(secret,)),),
        secrets.SecretSources({}, (), None),
    )
    _, values = secrets.resolve(stages, [place(directory)], anywhere, tmp_path)
    assert list(values.values()) == [b"private key"]


SECRET_FILE = """\
name: x
stages:
  - {type: run, command: [x], secrets: [{name: key, file: %s}], when: {architecture: %s}}
"""


@pytest.fixture
def remarks(tmp_path):
    """The errors and the notes about a secret's file in a recipe."""
    directory = tmp_path / "recipes"
    directory.mkdir()
    (tmp_path / "outside").write_text("private key")
    (directory / "good").write_text("private key")
    (directory / "empty").touch()
    (directory / "folder").mkdir()
    os.mkfifo(directory / "fifo")

    def load(name, architecture="amd64", **options):
        (directory / "r.yml").write_text(SECRET_FILE % (name, architecture))
        path = directory / "r.yml"
        try:
            loaded = loading.load(path, base="tar:base.tar", **options)
        except InvalidDocument as invalid:
            found = [p for p in invalid.problems if p.code in ("no-file", "bad-file")]
            return [(p.line, p.message) for p in found], [str(note) for note in invalid.notes]
        return [], [str(note) for note in loaded.notes]

    return load


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "cannot be read: not a regular file"),
        ("fifo", "cannot be read: not a regular file"),
        ("empty", "holds 0 bytes; a secret needs from 4 to 65536"),
        ("../outside", "lies outside of the recipe's directory"),
    ],
)
def test_a_file_that_holds_no_secret_is_an_error_of_the_recipe(remarks, name, message):
    problems, _ = remarks(name)
    assert [line for line, text in problems if message in text] == [3]


def test_a_recipe_is_valid_without_the_files_of_its_secrets_and_a_note_says_so(remarks):
    assert remarks("good")[0] == remarks("nonesuch")[0] == []
    assert not any("of this secret" in note for note in remarks("good")[1])
    (note,) = (note for note in remarks("nonesuch")[1] if "of this secret" in note)
    assert "r.yml:3:" in note
    assert "No such file or directory; a build needs it" in note


def test_files_outside_and_of_other_stages_are_no_matter_of_the_check(remarks):
    assert remarks("../outside", allow_outside=True)[0] == []
    assert remarks("folder", "arm64")[0] == []


def test_an_included_file_takes_a_secret_from_the_directory_of_the_recipe(recipe_path, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "key.pem").write_text("private key")
    stage = "- {type: run, command: [x], secrets: [{name: key, file: %s}]}\n"
    recipe_path.write_text("name: test\nstages:\n  - include: parts/a.yml\n  - type: qemu\n")
    (tmp_path / "parts/a.yml").write_text(stage % "../key.pem")
    options = BuildOptions(output_directory=tmp_path)
    assert list(make_plan(recipe_path, options).secrets.values()) == [b"private key"]
    (tmp_path / "parts/a.yml").write_text(stage % "../../key.pem")
    with pytest.raises(InvalidDocument) as raised:
        make_plan(recipe_path, options)
    assert "--allow-outside" in raised.value.problems[0].message


@pytest.mark.parametrize("command", [["build"], ["build", "--dry-run"], ["shell"]])
def test_a_recipe_takes_only_the_variables_that_the_command_names(
    recipe_path, tmp_path, monkeypatch, signals_restored, command
):
    monkeypatch.setenv("TOKEN", "hunter22")
    (tmp_path / "key.pem").write_text("private key")
    argv = [*command, recipe_path, "--base", "tar:base.tar"]
    for more in ([], ["--allow-env", "OTHER"]):
        refused = run(*argv, *more)
        assert refused.exit_code == 2
        assert (
            "secret 'token': the recipe asks for the environment variable TOKEN" in refused.stderr
        )
        assert "If you trust the recipe, permit it with --allow-env TOKEN." in refused.stderr
        assert "hunter22" not in refused.output
    permitted = run(*argv, "--allow-env", "OTHER", "--allow-env", "TOKEN")
    assert "secret" not in permitted.stderr


def empty(path):
    path.write_bytes(b"")


def short(path):
    path.write_bytes(b"x" * 31)


def link(path):
    other = path.with_name("other")
    other.write_bytes(b"x" * 32)
    path.symlink_to(other)


@pytest.mark.parametrize("plant", [empty, short, link, os.mkfifo, os.mkdir])
def test_a_damaged_key_is_made_again(tmp_path, plant):
    """An empty key would make of the hashes what a reader of the cache can guess."""
    secret = Secret(name="a", env="A")
    key = tmp_path / secrets.KEY
    plant(key)
    (first,), _ = resolve(tmp_path, {"A": "same"}, secret)
    assert stat.S_ISREG(key.lstat().st_mode)
    assert len(set(key.read_bytes())) > 8
    assert resolve(tmp_path, {"A": "same"}, secret)[0][0].secrets == first.secrets
    assert {path.name for path in tmp_path.iterdir()} <= {key.name, f"{key.name}.lock", "other"}


def test_the_key_is_complete_when_it_is_synced(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda file: sizes.append(os.fstat(file).st_size))
    assert len(secrets._key(tmp_path)) == 32
    assert sizes == [32]

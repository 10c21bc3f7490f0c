"""A recipe's own types of stages are checked like ours, also when conditions leave them out."""

import json

import jsonschema
import pytest
from particle_os.documents import parsing
from particle_os.errors import InvalidDocument, UsageError
from particle_os.recipe import loading
from particle_os.recipe.description import own_schema

from .composed import problems

SERVICE = """\
variables:
  unit: {type: string}
  port: 80
  fast: false
stages:
  - {type: services, enable: ["${unit}"]}
  - {type: run, command: [echo, "p${port}"], when: {variable: fast, is: true}}
"""
OFF = "when: {variable: outer, is: 'no'}"


def found(load, options, *, service=SERVICE, **files):
    return problems(load, f"  - {{type: svc, {options}}}\n", stages__svc=service, **files)


@pytest.mark.parametrize("condition", ["", f"{OFF}, ", "when: {architecture: arm64}, "])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("unit: a, unti: b", "svc.yml has no variable 'unti'"),
        ("port: 80", "the variable 'unit' of svc.yml has no value"),
        ("unit: a, port: many", 'port: expected an integer, found "many"'),
    ],
)
def test_an_own_stage_is_checked_whether_or_not_it_is_left_out(load, condition, options, message):
    assert [m for *_, m in found(load, f"{condition}{options}")] == [message]


@pytest.mark.parametrize("item", ["type: svc, unit: a", "include: stages/svc.yml, with: {unit: a}"])
def test_the_stages_of_what_is_left_out_are_checked(load, item):
    wrong = SERVICE.replace("enable:", "enabel:").replace("command:", "comand:")
    stage = f"  - {{{item}, {OFF}}}\n"
    keys = [m for *_, m in problems(load, stage, stages__svc=wrong)]
    assert keys == ["unknown key 'enabel'", "unknown key 'comand'"]
    loaded = load(stage, stages__svc=SERVICE)
    # Nothing else shows that the file is read.
    assert [note.code for note in loaded.notes] == ["left-out"]
    assert {path.name for path in loaded.files} == {"r.yml"}


def test_what_is_left_out_within_what_is_left_out_is_checked_with_its_own_variables(load):
    outer = f"variables: {{mine: 8}}\nstages: [{{type: svc, unit: a, port: '${{mine}}', {OFF}}}]\n"
    stage = f"  - {{include: o.yml, {OFF}}}\n"
    assert load(stage, o=outer, stages__svc=SERVICE).recipe.stages
    wrong = outer.replace("8", "x")
    assert [m for *_, m in problems(load, stage, o=wrong, stages__svc=SERVICE)] == [
        'port: expected an integer, found "x"'
    ]


def test_a_template_of_what_is_left_out_may_be_missing(load):
    files = "stages: [{type: files, files: [{path: /a, source: gone, template: true}]}]\n"
    assert load(f"  - {{include: o.yml, {OFF}}}\n", o=files).recipe.stages


@pytest.mark.parametrize("options", ["unit: a, unti: b", "unit: a, port: many"])
def test_the_hint_for_an_own_stage_names_it(load, tmp_path, options):
    load("", stages__svc=SERVICE)
    text = f"name: x\nbase-image: tar:b.tar\nstages: [{{type: svc, {options}}}, {{type: qemu}}]\n"
    (tmp_path / "r.yml").write_text(text)
    with pytest.raises(InvalidDocument) as raised:
        loading.load(tmp_path / "r.yml")
    (problem,) = raised.value.problems
    assert problem.hint in ("did you mean 'unit'?", "see 'particle-os explain svc'")


@pytest.mark.parametrize("text", ['pass"word1', "x" * 200, "secret-99"])
def test_a_wrong_argument_that_becomes_a_password_is_not_shown(load, text):
    users = "[{name: a, password-hash: '${port}'}]"
    service = f"variables: {{port: 80}}\nstages: [{{type: users, users: {users}}}]\n"
    (problem,) = found(load, f"port: {json.dumps(text)}", service=service)
    assert text[:20] not in problem[-1]
    assert "port: expected an integer" in problem[-1]


def complaints(schema, text, path):
    path.write_text(text)
    data = parsing.load(path).data
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(data)]


def test_the_schema_of_a_directory_knows_its_own_stages(load, tmp_path):
    load("", stages__svc=SERVICE)
    whole, part = own_schema.recipes(tmp_path), own_schema.included(tmp_path)
    jsonschema.Draft7Validator.check_schema(whole)
    jsonschema.Draft7Validator.check_schema(part)
    place = tmp_path / "document.yml"
    for options, fits in (
        ("unit: a", True),
        ("unit: a, port: '${port}', name: x, timeout: 3m", True),
        ("unit: a, unti: b", False),
        ("port: 80", False),
        ("unit: a, port: many", False),
        ("unit: a, secrets: []", False),
    ):
        stages = f"[{{type: svc, {options}}}, {{type: qemu}}]"
        assert (complaints(whole, f"name: x\nstages: {stages}\n", place) == []) is fits
        assert (complaints(part, f"{stages}\n", place) == []) is fits
    elsewhere = own_schema.recipes(tmp_path / "stages")
    assert complaints(elsewhere, "name: x\nstages: [{type: svc, unit: a}]\n", place)


def test_an_own_stage_of_one_stage_runs_alone(load, tmp_path):
    load("", stages__svc=SERVICE)
    options = tmp_path / "options.yml"
    options.write_text("unit: a\n")
    base = {"base": "tar:b.tar", "allow_outside": False}
    (stage,) = loading.load_stage("svc", options, **base).recipe.stages
    assert (stage.name, stage.enable) == ("svc", ("a",))
    options.write_text("unit: a\nfast: true\n")
    with pytest.raises(UsageError, match="'svc' is 2 stages"):
        loading.load_stage("svc", options, **base)

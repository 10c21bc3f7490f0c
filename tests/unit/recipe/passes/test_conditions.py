"""Conditions of stages, and what they leave out."""

import pytest
from particle_os.errors import InvalidDocument

from .composed import BASE, problems


@pytest.mark.parametrize(
    ("value", "condition", "holds"),
    [
        ("desktop", "is: desktop", True),
        ("desktop", "is: server", False),
        ("desktop", "is: [server, desktop]", True),
        ("8080", "is: 8080", True),
        ("true", "is: true", True),
        ("[a, b]", "is: [a, b]", True),
        ("[a, b]", "is: [a]", False),
    ],
)
def test_a_condition_about_a_variable_decides_about_the_stage(load, value, condition, holds):
    stage = f"  - {{type: run, script: x, when: {{variable: v, {condition}}}}}\n"
    loaded = load(stage, None, f"v: {value}")
    assert len(loaded.recipe.stages) == 1 + holds
    assert [note.code for note in loaded.notes] == [] if holds else ["left-out"]


@pytest.mark.parametrize(
    ("value", "wanted", "hint"),
    [
        ("'13'", "13", "put it in quotes: '13'"),
        ("'true'", "true", "put it in quotes: 'true'"),
        ("'1.0'", "1.0", "put it in quotes: '1.0'"),
        ("'13'", "[a, 13]", "put it in quotes: '13'"),
        ("3", "'3'", "write 3, without quotes"),
        ("3", "abc", "write an integer"),
        ("true", "'true'", "write true, without quotes"),
        ("x", "~", "write a string"),
        ("x", "{a: b}", "write a string"),
        ("x", "[]", "write a value of 'v'"),
        ("[a, b]", "a", "write the whole list: [a, …]"),
    ],
)
@pytest.mark.parametrize("item", ["type: run, script: x", "include: one.yml", "type: one"])
def test_a_condition_that_no_value_meets_is_an_error(load, value, wanted, hint, item):
    stage = f"  - {{{item}, when: {{variable: v, is: {wanted}}}}}\n"
    with pytest.raises(InvalidDocument) as raised:
        load(stage, None, f"v: {value}", one=ONE, stages__one=ONE)
    (problem,) = raised.value.problems
    assert problem.hint == hint
    assert not raised.value.notes


@pytest.mark.parametrize("wanted", ["{a: b}", "1.5"])
def test_a_wrong_value_of_a_condition_has_a_message_in_words(load, wanted):
    stage = f"  - {{type: run, script: x, when: {{variable: [f], is: {wanted}}}}}\n"
    found = [message for *_, message in problems(load, stage)]
    assert any(message.startswith("variable: expected the name of a var") for message in found)
    assert any("is: expected a string, an integer, true or false, or a" in m for m in found)
    assert len(found) == 2


LEFT_OUT = "when: {variable: v, is: b}"


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ("{type: nope, bla: [x], when: {variable: v, is: b}}", "unknown-stage"),
        ("{type: run, skript: x, when: {variable: v, is: b}}", "unknown-key"),
        ("{type: run, script: [x], when: {variable: v, is: b}}", "bad-value"),
        ("{type: run, script: x, when: {variable: v, is: b, foo: 1}}", "unknown-key"),
        ("{include: none.yml, when: {variable: v, is: b}}", "no-file"),
        ("{include: none.yml, when: {architecture: arm64}}", "no-file"),
        ("{include: one.yml, condition: {a: b}, when: {variable: v, is: b}}", "unknown-key"),
        ("{include: one.yml, when: {variable: v, is: b, foo: 1}}", "unknown-key"),
        ("{type: one, when: {variable: v, is: b, foo: 1}}", "unknown-key"),
    ],
)
def test_what_a_condition_leaves_out_is_checked(load, item, code):
    with pytest.raises(InvalidDocument) as raised:
        load(f"  - {item}\n", None, "v: a", one=ONE, stages__one=ONE)
    assert code in [problem.code for problem in raised.value.problems]
    assert all(problem.hint and problem.line == 5 for problem in raised.value.problems)


@pytest.mark.parametrize(
    "item",
    [
        "{type: files, files: [{path: /a, source: one.yml, template: true}], WHEN}",
        "{include: one.yml, WHEN}",
        "{type: one, WHEN}",
        "{type: org.osbuild.debian.files, options: {files: [{path: /a, content: x}]}, WHEN}",
    ],
)
def test_what_a_condition_leaves_out_may_be_of_each_form(load, item):
    stage = item.replace("WHEN", "when: {variable: v, is: b}")
    loaded = load(f"  - {stage}\n", None, "v: a", one=ONE, stages__one=ONE)
    assert "left-out" in [note.code for note in loaded.notes]


def test_a_secret_of_what_is_left_out_is_in_no_message(load):
    stage = "{type: users, users: [{name: x, password-hash: ['${v}']}], when: {variable: v, is: b}}"
    with pytest.raises(InvalidDocument) as raised:
        load(f"  - {stage}\n", None, "v: hunter2")
    assert "hunter2" not in str(raised.value)


def test_a_problem_of_an_include_is_not_one_of_the_stage_before(load):
    stages = "  - {type: hostname, hostname: x}\n  - {include: one.yml, with: 3}\n"
    with pytest.raises(InvalidDocument) as raised:
        load(stages, one=ONE)
    (problem,) = raised.value.problems
    assert "explain include" in problem.hint


def test_conditions_hold_for_included_files_and_beside_an_architecture(load):
    when = "when: {variable: outer, is: no, architecture: amd64}"
    stages = f"  - {{include: base.yml, with: {{packages: [vim]}}, {when}}}\n"
    stages += f"  - {{type: run, script: x, {when}}}\n"
    assert len(load(stages, base=BASE).recipe.stages) == 1
    stage = "  - {type: run, script: x, when: {variable: outer, is: 'yes', architecture: arm64}}\n"
    assert len(load(stage).recipe.stages) == 1


WRONG_CONDITIONS = pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{variable: otter, is: x}", "there is no variable 'otter'"),
        ("{variable: outer}", "when: 'variable' and 'is' belong together"),
        ("{is: x}", "when: write 'architecture', or 'variable' and 'is'"),
        ("{}", "when: write 'architecture', or 'variable' and 'is'"),
        ("{variabel: outer, is: x}", "unknown key 'variabel'"),
        ("amd64", 'when: expected a mapping, found "amd64"'),
    ],
)
# An item that is a stage, an included file, and a stage of a type of the recipe's own.
ITEMS = pytest.mark.parametrize("item", ["type: run, script: x", "include: one.yml", "type: one"])
ONE = "stages: [{type: run, script: x}]\n"


@ITEMS
@WRONG_CONDITIONS
def test_a_condition_that_says_nothing_is_an_error(load, item, when, message):
    found = problems(load, f"  - {{{item}, when: {when}}}\n", one=ONE, stages__one=ONE)
    assert message in [message for _, _, _, message in found]


@ITEMS
@pytest.mark.parametrize("architecture", ["arm64", "[arm64, armhf]", "amd64", "[arm64, amd64]"])
def test_a_condition_about_the_architecture_decides_about_each_kind_of_item(
    load, item, architecture
):
    stage = f"  - {{{item}, when: {{architecture: {architecture}}}}}\n"
    loaded = load(stage, one=ONE, stages__one=ONE)
    holds = "amd64" in architecture
    assert len(loaded.recipe.stages) == 1 + holds
    assert [note.code for note in loaded.notes] == ([] if holds else ["left-out"])

"""Variables: their declarations, their use in values, and mistakes in both."""

import pytest
from particle_os.documents import parsing
from particle_os.errors import InvalidDocument, UsageError
from particle_os.recipe import loading
from particle_os.recipe.parameters import budget

DECLARED = """\
variables:
  host: web
  count: 3
  fast: true
  extra: [curl, nano]
  size: {type: string, default: 4G, description: The disk's size}
  who: {type: string}
"""


def load(tmp_path, stages, declared=DECLARED, **given):
    path = tmp_path / "recipe.yml"
    path.write_text(f"{declared}name: test\nstages:\n{stages}  - type: qemu\n")
    values = {"who": "me", **given} if declared == DECLARED else given
    return loading.load(path, values, base="tar:base.tar")


def stage(tmp_path, text, **given):
    return load(tmp_path, f"  - {text}\n", **given).recipe.stages[0]


def problems(tmp_path, stages, declared=DECLARED):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, stages, declared)
    return [(p.line, p.column, p.code, p.hint) for p in raised.value.problems]


def test_a_whole_value_takes_the_type(tmp_path):
    apt = stage(tmp_path, 'type: apt\n    update: ${fast}\n    packages: ["${extra}"]')
    assert apt.update is True
    assert stage(tmp_path, "type: apt\n    packages: ${extra}").packages == ("curl", "nano")
    user = stage(tmp_path, 'type: users\n    users: [{name: a, uid: "${count}"}]').users[0]
    assert user.uid == 3


def test_a_list_in_a_list_becomes_its_items(tmp_path):
    found = stage(tmp_path, 'type: apt\n    packages: [a1, "${extra}", z1]')
    assert found.packages == ("a1", "curl", "nano", "z1")


def test_a_part_of_a_text_is_text(tmp_path):
    found = stage(tmp_path, 'type: run\n    command: [x, "${host}-${count}-${fast}-${who}"]')
    assert found.command == ("x", "web-3-true-me")


def test_a_number_or_a_boolean_becomes_a_text_where_a_text_is_wanted(tmp_path):
    stages = """\
  - {type: files, files: [{path: /a, content: "${count}"}, {path: /b, content: "${fast}"}]}
  - {type: run, command: [serve, "${count}"], environment: {COUNT: "${count}"}}
  - {type: hostname, hostname: "${count}"}
"""
    files, run, hostname, _ = load(tmp_path, stages).recipe.stages
    assert [file.content for file in files.files] == ["3", "true"]
    assert run.command == ("serve", "3")
    assert run.environment == {"COUNT": "3"}
    assert hostname.hostname == "3"


def test_a_number_for_a_text_has_to_be_a_valid_text(tmp_path):
    with pytest.raises(InvalidDocument) as raised:
        stage(tmp_path, 'type: files\n    files: [{path: "${count}", content: x}]')
    (problem,) = raised.value.problems
    assert problem.message.endswith('found "3"')
    assert "quotes" not in str(problem.hint)


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("mode", "put it in quotes, in octal digits as in '0755', in the variable 'count'"),
        ("size", "add the unit, as in '4G' or '800M', in the variable 'count'"),
    ],
)
def test_a_number_whose_text_has_another_meaning_is_corrected_in_the_variable(
    tmp_path, option, hint
):
    text = {"mode": 'files\n    files: [{path: /a, content: x, mode: "${count}"}]',
            "size": 'qemu\n    size: "${count}"'}[option]  # fmt: skip
    with pytest.raises(InvalidDocument) as raised:
        stage(tmp_path, f"type: {text}")
    assert hint in [problem.hint for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$${HOME}", "${HOME}"),
        ("$HOME $(id) $$ {x}", "$HOME $(id) $$ {x}"),
        ("a$${b}${host}", "a${b}web"),
        ("$$", "$$"),
    ],
)
def test_other_dollars_stay(tmp_path, text, value):
    assert stage(tmp_path, f'type: run\n    command: [x, "{text}"]').command == ("x", value)


def test_the_recipe_itself_may_use_them(tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text('variables: {n: web}\nname: ${n}1\ndescription: "${n}"\nstages: [{type: qemu}]')
    loaded = loading.load(path, {"n": "db"}, base="tar:base.tar")
    assert (loaded.recipe.name, loaded.recipe.description) == ("db1", "db")


def test_the_command_line_gives_values_by_their_type(tmp_path):
    text = 'type: apt\n    name: ${who}\n    update: ${fast}\n    packages: ["${extra}"]'
    found = stage(tmp_path, text, who="5", fast="false", extra="vim, git")
    assert (found.name, found.update, found.packages) == ("5", False, ("vim", "git"))
    assert stage(tmp_path, text, extra="").packages == ()


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"hots": "x"}, "there is no variable 'hots'", "did you mean 'host'?"),
    ],
)
def test_a_value_that_does_not_fit_is_wrong_usage(tmp_path, given, message, hint):
    with pytest.raises(UsageError, match=message) as raised:
        load(tmp_path, "", **given)
    assert raised.value.hint == hint


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", "many", "--set count: expected an integer, found 'many'"),
        ("fast", "yes", "--set fast: expected true or false, found 'yes'"),
    ],
)
def test_a_value_of_another_kind_is_reported_where_the_variable_is(tmp_path, name, value, message):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, "", **{name: value})
    (problem,) = raised.value.problems
    assert (problem.code, problem.message) == ("bad-value", message)
    assert problem.line > 1


def test_a_recipe_without_variables_takes_none(tmp_path):
    with pytest.raises(UsageError) as raised:
        load(tmp_path, "", "", host="x")
    assert raised.value.hint == "recipe.yml declares none"


def test_the_file_of_options_of_a_single_stage_is_the_one_that_declares_none(tmp_path):
    options = tmp_path / "options.yml"
    options.write_text("packages: [nano]\n")
    with pytest.raises(UsageError) as raised:
        loading.load_stage("apt", options, {"host": "x"}, base="tar:base.tar", allow_outside=False)
    assert raised.value.hint == "options.yml declares none"


LITERAL = "write '$${' where no variable is meant"


@pytest.mark.parametrize(
    ("stages", "found"),
    [
        ("  - type: apt\n    packages: ['${hosts}']\n", (11, 17, "did you mean 'host'?")),
        ("  - type: apt\n    name: a ${xyzzy} ${host}\n", (11, 13, LITERAL)),
        ('  - type: apt\n    name: "$${x} ${host} ${HOME}"\n', (11, 26, LITERAL)),
        (
            "  - type: run\n    command:\n      - sh\n      - |\n        echo ${host}\n"
            "        echo $${x} ${HOME:-x}\n",
            (15, 20, LITERAL),
        ),
        ("  - type: qemu-${x}\n", (10, 16, LITERAL)),
    ],
)
def test_an_unknown_variable_is_reported_at_its_place_and_only_once(tmp_path, stages, found):
    line, column, hint = found
    assert problems(tmp_path, stages) == [(line, column, "unknown-variable", hint)]


@pytest.mark.parametrize(
    ("text", "column"), [("a ${host", 13), ("${", 11), ("a ${extra}", 13), ("${extra}", 11)]
)
def test_what_cannot_be_put_in(tmp_path, text, column):
    (found,) = problems(tmp_path, f"  - type: apt\n    name: {text}\n")
    assert found[:2] == (11, column)
    assert found[2] in ("bad-variable", "bad-type", "bad-value")


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ("variables: [a]\n", (1, 12, "bad-type")),
        ("variables: {A: x}\n", (1, 13, "bad-key")),
        ("variables: {a: 1.5}\n", (1, 16, "bad-type")),
        ("variables: {a: ~}\n", (1, 16, "bad-type")),
        ("variables: {a: [1]}\n", (1, 16, "bad-type")),
        ("variables: {a: {typ: string, default: x}}\n", (1, 17, "unknown-key")),
        ("variables: {a: {type: int}}\n", (1, 23, "bad-value")),
        ("variables: {a: {type: integer, default: x}}\n", (1, 41, "bad-type")),
        ("variables: {a: {description: x}}\n", (1, 16, "missing-key")),
        ("variables: {a: {type: integer}}\n", (1, 16, "missing-value")),
        ('variables: {a: x, b: "${a}"}\n', (1, 22, "bad-variable")),
    ],
)
def test_a_declaration_that_is_wrong(tmp_path, declared, found):
    assert [p[:3] for p in problems(tmp_path, "", declared)] == [found]


def test_a_variable_with_a_wrong_declaration_is_not_unknown_as_well(tmp_path):
    found = problems(tmp_path, "  - {type: apt, packages: '${a}'}\n", "variables: {a: 1.5}\n")
    assert [p[2] for p in found] == ["bad-type"]


def test_what_is_put_in_is_not_looked_at_again(tmp_path):
    found = stage(tmp_path, "type: run\n    command: ${extra}", extra="${host}")
    assert found.command == ("${host}",)


def test_variables_cannot_make_a_document_huge(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "SIZE_LIMIT", 1000)
    uses = "".join("  - {type: run, command: ['${big}']}\n" for _ in range(20))
    found = problems(tmp_path, uses, f"variables: {{big: {'x' * 100}}}\n")
    assert [p[2] for p in found] == ["too-complex"]
    empty = "''," * 100
    many = problems(tmp_path, uses, f"variables: {{big: [{empty}]}}\n")
    assert [p[2] for p in many] == ["too-complex"]


def test_braces_in_a_flow_list_ask_for_quotes(tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text("name: x\nstages: [{type: apt, packages: [${a}]}]\n")
    with pytest.raises(InvalidDocument) as raised:
        parsing.load(path)
    assert "in quotes" in raised.value.problems[0].hint


@pytest.mark.parametrize(
    "text",
    [
        'files\n    files: [{path: /a, content: "hello {{ count }}"}]',
        'files\n    files: [{path: "/b{{count}}", content: x}]',
        'run\n    script: "echo {{- count -}}"',
        'run\n    command: [echo, "{{ count }}", "{{ count }} {{ count }}"]',
    ],
)
def test_a_variable_in_the_syntax_of_other_programs_is_noted(tmp_path, text):
    notes = load(tmp_path, f"  - type: {text}\n").notes
    assert {(n.code, n.line, n.message) for n in notes} == {
        ("other-syntax", 11, "'{{ count }}' is no variable here: write ${count}")
    }
    assert len({note.column for note in notes}) == len(notes)


@pytest.mark.parametrize("text", ["{{ .Names }}", "{{ unknown }}", "{ count }", "{{ count"])
def test_braces_without_a_variable_are_not_noted(tmp_path, text):
    found = load(tmp_path, f'  - {{type: run, command: [docker, ps, "{text}"]}}\n')
    assert found.notes == ()


@pytest.mark.parametrize(
    "text", ['run\n    command: "echo {{ count }}"', 'apt\n    packages: "{{ extra }}"']
)
def test_the_syntax_of_other_programs_comes_before_the_form_of_a_list(tmp_path, text):
    found = problems(tmp_path, f"  - type: {text}\n")
    assert [hint for *_, hint in found] == ["write ${x} for a variable, not {{ x }}"]

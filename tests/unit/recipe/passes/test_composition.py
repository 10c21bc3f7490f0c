"""Arguments of included files, types of stages of a recipe's own, templates."""

import base64

import pytest
from particle_agent.stages.contents.files import Files
from particle_agent.stages.contents.run import Run
from particle_os.documents.writing import as_yaml
from particle_os.errors import InvalidDocument, UsageError, whole_line
from particle_os.recipe import loading

from .composed import BASE, problems

TEMPLATE = "  - {type: files, files: [{path: /etc/conf, source: conf, template: true}]}\n"


def test_an_included_file_has_arguments_and_defaults(load):
    include = '  - {include: base.yml, with: {packages: [nano, "${outer}"], zone: x}}\n'
    apt, run, _ = load(include, base=BASE).recipe.stages
    assert apt.packages == ("systemd-sysv", "nano", "yes")
    assert run.command == ("echo", "x", "p80", "yes")


def test_one_file_is_included_with_different_arguments(load):
    include = "".join(
        f"  - {{include: base.yml, with: {{packages: [{n}]}}}}\n" for n in ("aa", "bb")
    )
    first, _, second, _, _ = load(include, base=BASE).recipe.stages
    assert (first.packages[1], second.packages[1]) == ("aa", "bb")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("packages: nano", ("bad-type", 'packages: expected a list of strings, found "nano"')),
        ("packages: [], port: many", ("bad-type", 'port: expected an integer, found "many"')),
        ("packages: [], pakages: []", ("unknown-variable", "base.yml has no variable 'pakages'")),
        ("zone: x", ("missing-value", "the variable 'packages' of base.yml has no value")),
    ],
)
def test_a_wrong_argument_is_an_error_at_its_place(load, arguments, found):
    include = f"  - {{include: base.yml, with: {{{arguments}}}}}\n"
    assert ("r.yml", 5, *found) in problems(load, include, base=BASE)


def test_an_included_file_inside_of_another_sees_the_variables_around_it(load):
    outer = "variables: {a: 1}\nstages:\n  - {include: inner.yml, with: {b: '${a}-${outer}'}}\n"
    inner = "variables: {b: x}\nstages:\n  - {type: run, command: [echo, 'a${a}', '${b}']}\n"
    run, _ = load("  - {include: outer.yml}\n", outer=outer, inner=inner).recipe.stages
    assert run.command == ("echo", "a1", "1-yes")


def test_the_variables_of_a_file_stay_in_it(load):
    stages = "  - {include: base.yml, with: {packages: []}}\n  - {type: run, script: '${zone}'}\n"
    assert ("r.yml", 6, "unknown-variable", "there is no variable 'zone'") in problems(
        load, stages, base=BASE
    )


def test_a_file_of_the_directory_stages_is_a_type_of_stage(load):
    stages = "  - {type: web, packages: [nginx-light]}\n"
    apt, run, _ = load(stages, stages__web=BASE).recipe.stages
    assert apt.packages == ("systemd-sysv", "nginx-light")
    assert run.command[2] == "p80"
    found = problems(load, "  - {type: web, prot: 1}\n", stages__web=BASE)
    assert ("r.yml", 5, "unknown-variable", "web.yml has no variable 'prot'") in found


def test_a_type_of_ours_is_not_replaced(load):
    loaded = load("  - {type: run, script: x}\n", stages__run=BASE)
    assert loaded.recipe.stages[0] == Run(script="x")
    (note,) = loaded.notes
    assert (note.path.rpartition("/")[2], note.code) == ("run.yml", "own-stage")
    assert "'run' is a stage of particle-os" in note.message


def test_the_descriptions_of_a_type_of_ones_own_are_texts(load):
    wrong = "description: [3]\nvariables: {v: {default: a, description: [b]}}\nstages: []\n"
    found = problems(load, "  - {type: web}\n", stages__web=wrong)
    assert sorted(f[1:3] for f in found) == [(1, "bad-type"), (2, "bad-type")]


def test_a_misspelt_type_of_ones_own_is_hinted_at(load):
    with pytest.raises(InvalidDocument) as raised:
        load("  - {type: web-site}\n", stages__web_sites=BASE)
    (problem,) = raised.value.problems
    assert (problem.code, problem.hint) == ("unknown-stage", "did you mean 'web-sites'?")


def test_a_template_is_filled_and_keeps_its_mode(load, tmp_path):
    (tmp_path / "conf").write_text("a=${outer}\nb=$${HOME}\n")
    (tmp_path / "conf").chmod(0o640)
    stage = "  - {type: files, files: [{path: /etc/conf, source: conf, template: true}]}\n"
    loaded = load(stage)
    files, _ = loaded.recipe.stages
    assert isinstance(files, Files)
    assert (files.files[0].content, files.files[0].mode) == ("a=yes\nb=${HOME}\n", "0640")
    assert tmp_path / "conf" in loaded.files
    assert loaded.attachments == ((), ())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"a\nb ${otter}", ("conf", 2, "unknown-variable")),
        (b"\xff", ("r.yml", 5, "no-file")),
        (b"x" * ((1 << 20) + 1), ("r.yml", 5, "no-file")),
        (None, ("r.yml", 5, "no-file")),
    ],
)
def test_a_template_that_cannot_be_filled_is_an_error(load, tmp_path, content, found):
    if content is not None:
        (tmp_path / "conf").write_bytes(content)
    stage = "  - {type: files, files: [{path: /etc/conf, source: conf, template: true}]}\n"
    assert found in [each[:3] for each in problems(load, stage)]


@pytest.mark.parametrize(
    ("variable", "content"), [("80", "80"), ("true", "true"), ("text", "text"), ("-5", "-5")]
)
def test_a_template_of_one_variable_is_filled(load, tmp_path, variable, content):
    (tmp_path / "conf").write_text("${outer}")
    files, _ = load(TEMPLATE, None, f"outer: {variable}").recipe.stages
    assert files.files[0].content == content


def test_a_template_cannot_be_a_list(load, tmp_path):
    (tmp_path / "conf").write_text("${outer}")
    message = "the list 'outer' can only be a whole value, not a part of a text"
    assert ("conf", 1, "bad-variable", message) in problems(load, TEMPLATE, None, "outer: [a, b]")


@pytest.mark.parametrize("name", ["conf", "one.yml", "r.yml"])
def test_too_many_errors_in_one_file_are_told(load, tmp_path, name):
    """The problems of a file that is given up in the middle are not lost."""
    (tmp_path / "conf").write_text("${x}\n" * 1001 if name == "conf" else "")
    stage = f"{{type: run, command: [{'${x}' * 1001!r}]}}"
    one = f"- {stage}\n" if name == "one.yml" else "[]"
    own = f"  - {stage}\n" if name == "r.yml" else ""
    found = problems(load, f"{TEMPLATE}  - {{include: one.yml}}\n{own}", one=one)
    assert {each[0] for each in found} == {name}
    assert [each[2] for each in found] == [*["unknown-variable"] * 1000, "too-many"]


def test_too_many_errors_in_several_files_are_told(load, tmp_path):
    (tmp_path / "conf").write_text("${x}\n")
    run = f"  - {{type: run, command: [{'${x}' * 1000!r}]}}\n"
    assert ("conf", "too-many") in [(p[0], p[2]) for p in problems(load, run + TEMPLATE)]


@pytest.mark.parametrize("name", ["conf", "one.yml"])
def test_a_large_value_that_is_inserted_often_is_told(load, tmp_path, name):
    (tmp_path / "conf").write_text("${outer}" * 3 if name == "conf" else "")
    one = f"- {{type: run, script: {'${outer}' * 3!r}}}\n" if name == "one.yml" else "[]"
    stages = f"{TEMPLATE}  - {{include: one.yml}}\n"
    ((file, _, code, _),) = problems(load, stages, None, f"outer: {'x' * 500_000}", one=one)
    assert (file, code) == (name, "too-complex")


def test_a_template_is_taken_from_the_directory_of_the_recipe_only(load, tmp_path):
    stage = "  - {type: files, files: [{path: /x, source: /etc/hostname, template: true}]}\n"
    ((_, _, code, message),) = problems(load, stage)
    assert code == "no-file"
    assert "/etc/hostname" in message


def test_a_list_gets_more_items_from_the_command_line(load):
    stage = "  - {type: apt, packages: [aa, '${more}']}\n"
    apt, _ = load(stage, {"more+": "xx, yy"}, "more: [bb]").recipe.stages
    assert apt.packages == ("aa", "bb", "xx", "yy")
    found = problems(load, stage.replace("more", "one"), {"one+": "x"}, "one: b")
    assert "--set one+=…: the variable is no list" in [message for *_, message in found]


def test_the_resolved_recipe_has_everything_put_in_but_secrets(load, tmp_path):
    stages = """\
  - {include: base.yml, with: {packages: [nano]}}
  - {type: users, users: [{name: ann, password-hash: "${hash}"}]}
  - {type: run, script: x, when: {variable: outer, is: no}}
"""
    load(stages, None, "outer: yes, hash: $6$salt$hash", base=BASE)
    data = loading.resolved(tmp_path / "r.yml")
    assert [stage["type"] for stage in data["stages"]] == ["apt", "run", "users", "qemu"]
    assert data["stages"][0]["packages"] == ["systemd-sysv", "nano"]
    assert "salt" not in str(data)
    assert "variables" not in data


BLOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)).decode()
KEY = f"ssh-ed25519 {BLOB} ann@example"


def test_the_resolved_recipe_hides_secrets_only(load, tmp_path):
    stages = f"""\
  - type: users
    secrets: [{{name: first, file: first.txt}}]
    users:
      - {{name: ann, password-hash: "${{hash}}", ssh-authorized-keys: ["{KEY}", "${{key}}"]}}
      - {{name: bob, password: expired, password-secret: first}}
  - {{type: run, script: "echo ${{key}} ${{hash}}"}}
  - {{type: run, script: "echo ${{key}}"}}
"""
    (tmp_path / "first.txt").write_text("hunter2")
    load(stages, None, f"hash: $6$salt$hash, key: '{KEY}'")
    first, run, other, _ = loading.resolved(tmp_path / "r.yml")["stages"]
    ann, bob = first["users"]
    assert ann["ssh-authorized-keys"] == [KEY, KEY]
    assert bob == {"name": "bob", "password": "expired", "password-secret": "first"}
    assert first["secrets"] == [{"name": "first", "file": "first.txt"}]
    assert ann["password-hash"] == "(confidential)"
    # One part of the text is a secret.
    assert run["script"] == "(confidential)"
    assert other["script"] == f"echo {KEY}"


def test_the_resolved_recipe_is_a_recipe_again(load, tmp_path):
    script = "echo $${HOME} '$$${outer}'\\n::error::x\\n##[x] 0o755\\u2028\\u202e"
    stages = f'  - {{type: run, script: "{script}", environment: {{A: "1e5", B: "0o755"}}}}\n'
    before = load(stages).recipe
    data = loading.resolved(tmp_path / "r.yml")
    (tmp_path / "again.yml").write_text("\n".join(map(whole_line, as_yaml(data))))
    again = loading.load(tmp_path / "again.yml")
    assert again.recipe == before
    assert loading.resolved(tmp_path / "again.yml") == data


def remarks(load, *arguments, **files):
    """The problems and notes of a recipe: the code, the message and the hint of each."""
    with pytest.raises(InvalidDocument) as raised:
        load(*arguments, **files)
    found = [*raised.value.problems, *raised.value.notes]
    return [(p.code, p.message, p.hint) for p in found]


@pytest.mark.parametrize("disk", ["type: qemu", "include: disk.yml", "type: disk"])
@pytest.mark.parametrize("others", ["", "  - {type: run, script: x}\n"])
def test_a_disk_that_a_condition_leaves_out_is_the_reason(tmp_path, load, others, disk):
    when = "when: {variable: outer, is: no}"
    disks = "[{type: qemu}]"
    load("", disk=disks, stages__disk=disks)
    recipe = tmp_path / "r.yml"
    head = "variables: {outer: yes}\nname: test\nbase-image: tar:base.tar\nstages:\n"
    recipe.write_text(f"{head}{others}  - {{{disk}, {when}}}\n")
    with pytest.raises(InvalidDocument) as raised:
        loading.load(recipe)
    ((code, message, hint),) = [(p.code, p.message, p.hint) for p in raised.value.problems]
    name = disk.partition(": ")[2]
    assert (code, message) == (
        "bad-order",
        f"the recipe ends without a disk: 'when' leaves out {name}",
    )
    assert hint == "remove its 'when', or add '- type: qemu' as the last stage"
    assert [note.code for note in raised.value.notes] == ["left-out"]


def test_a_recipe_whose_only_stage_is_left_out_lacks_a_disk(tmp_path):
    recipe = tmp_path / "r.yml"
    stage = "{type: run, script: x, when: {variable: v, is: a}}"
    recipe.write_text(f"variables: {{v: b}}\nname: test\nstages: [{stage}]\n")
    with pytest.raises(InvalidDocument) as raised:
        loading.load(recipe)
    ((code, hint),) = [(p.code, p.hint) for p in raised.value.problems]
    assert (code, hint) == ("bad-order", "add '- type: qemu' as the last stage")


def test_a_single_stage_that_a_condition_leaves_out_is_told(tmp_path):
    options = tmp_path / "f.yml"
    options.write_text("variables: {v: a}\nscript: x\nwhen: {variable: v, is: b}\n")
    with pytest.raises(UsageError, match="the stage run is left out: 'v' is not 'b'"):
        loading.load_stage("run", options, base="tar:base.tar", allow_outside=False)


@pytest.mark.parametrize(
    ("value", "wanted", "shown"),
    [
        ("zzz", "a", "'a'"),
        ("zzz", "[a, b]", "'a' or 'b'"),
        ("false", "true", "'true'"),
        ("2", "1", "'1'"),
    ],
)
def test_the_note_on_a_condition_shows_what_is_wanted_and_not_the_value(load, value, wanted, shown):
    stage = f"  - {{type: run, script: x, when: {{variable: v, is: {wanted}}}}}\n"
    (note,) = load(stage, None, f"v: {value}").notes
    assert note.message == f"the stage run is left out: 'v' is not {shown}"


@pytest.mark.parametrize(
    "stage",
    [
        "{type: org.osbuild.debian.files, options: {files: [FILE]}}",
        "{name: org.osbuild.debian.files, files: [FILE]}",
    ],
)
@pytest.mark.parametrize("included", [True, False])
def test_an_older_stage_has_templates_too(load, tmp_path, stage, included):
    (tmp_path / "conf").write_text("a=${outer}")
    stage = stage.replace("FILE", "{path: /etc/conf, source: conf, template: true}")
    stages = "  - {include: one.yml}\n" if included else f"  - {stage}\n"
    loaded = load(stages, one=f"- {stage}\n")
    assert loaded.recipe.stages[0].files[0].content == "a=yes"
    assert {note.code for note in loaded.notes} == {"older-form"}


@pytest.mark.parametrize(
    "other",
    ["content: mine", f"download: {{url: 'http://mirror.example.org/x', sha256: {'0' * 64}}}"],
)
def test_a_template_does_not_replace_what_else_the_file_would_hold(load, tmp_path, other):
    (tmp_path / "conf").write_text("a")
    stage = TEMPLATE.replace("template", f"{other}, template")
    found = [message for _, message, _ in remarks(load, stage)]
    assert "/etc/conf: write one of 'content', 'source' and 'download'" in found


def test_all_templates_together_are_limited(load, tmp_path):
    (tmp_path / "conf").write_text("x" * 600_000)
    files = "{path: /etc/conf, source: conf, template: true}, "
    files += files.replace("/etc/conf", "/etc/conf2")
    found = problems(load, f"  - {{type: files, files: [{files}]}}\n")
    assert [(code, line) for _, line, code, _ in found] == [("too-complex", 5)]


def test_an_argument_without_a_value_is_named(load):
    """The name of a variable of an included file is no confidential text."""
    user = "variables: {hash: {type: string}}\nstages:\n"
    user += "  - {type: users, users: [{name: ann, password-hash: '${hash}'}]}\n"
    found = problems(load, "  - {include: user.yml}\n", user=user)
    assert ("r.yml", 5, "missing-value", "the variable 'hash' of user.yml has no value") in found


@pytest.mark.parametrize("argument", ["${pw}", "${pw}${more}"])
def test_a_value_that_is_confidential_as_an_argument_is_so_everywhere(load, tmp_path, argument):
    stages = f"""\
  - {{type: files, files: [{{path: /a, content: "${{pw}}"}}]}}
  - {{include: user.yml, with: {{hash: "{argument}"}}}}
"""
    inner = "variables: {one: ''}\nstages:\n"
    inner += "  - {type: users, users: [{name: ann, password-hash: '${one}'}]}\n"
    user = "variables: {hash: {type: string}}\nstages:\n"
    user += "  - {include: inner.yml, with: {one: '${hash}'}}\n"
    user += "  - {type: files, files: [{path: /b, content: 'x${hash}'}]}\n"
    load(stages, None, "outer: a, pw: $6$salt$hash, more: ''", user=user, inner=inner)
    shown = loading.resolved(tmp_path / "r.yml")["stages"]
    assert "salt" not in str(shown)
    assert shown[0]["files"][0] == {"path": "/a", "content": "(confidential)"}


WEB = """\
variables: {domain: {type: string}}
stages:
  - {type: run, script: "x ${domain}"}
  - {type: run, name: inner, script: x, timeout: 1m, network: none}
"""


def test_a_stage_of_the_recipes_own_has_the_options_of_every_stage(load):
    options = "name: Our web, timeout: 5m, network: [mirror.example.org]"
    options += ", when: {variable: outer, is: yes}"
    stage = f"  - {{type: web, domain: x, {options}}}\n"
    loaded = load(stage, stages__web=WEB).recipe.stages
    assert [(s.label, s.timeout, s.network) for s in loaded[:2]] == [
        ("Our web (run)", 300, ("mirror.example.org",)),
        ("Our web: inner (run)", 60, "none"),
    ]
    assert len(load(stage.replace("is: yes", "is: no"), stages__web=WEB).recipe.stages) == 1


def test_a_stage_of_the_recipes_own_is_named_after_its_type(load):
    outer = "- {type: web, domain: x}\n- {type: web, domain: y, name: second}\n"
    loaded = load("  - {type: outer}\n", stages__web=WEB, stages__outer=outer)
    # Types of the recipe's own are beside the recipe, also for included files.
    assert [stage.name for stage in loaded.recipe.stages[:4]] == [
        "outer: web", "outer: web: inner", "outer: second", "outer: second: inner"
    ]  # fmt: skip
    long = "x" * 78
    loaded = load(f"  - {{type: web, domain: x, name: {long}}}\n", stages__web=WEB)
    assert [stage.name for stage in loaded.recipe.stages[:2]] == [long, "inner"]


def test_a_variable_of_the_same_name_takes_the_option(load):
    web = WEB.replace("domain", "name")
    first, second, _ = load("  - {type: web, name: x}\n", stages__web=web).recipe.stages
    assert (first.script, first.name, second.name) == ("x x", "web", "web: inner")


def test_a_wrong_option_of_every_stage_is_reported_once_at_its_place(load):
    stage = "  - {type: web, domain: x, name: 5, timeout: 5x}\n"
    found = problems(load, stage, stages__web=WEB.replace(", timeout: 1m", ""))
    assert [(path, line, message.partition(":")[0]) for path, line, _, message in found] == [
        ("r.yml", 5, "name"),
        ("r.yml", 5, "timeout"),
    ]
    found = problems(load, "  - {type: web, domain: x, secrets: []}\n", stages__web=WEB)
    assert ("r.yml", 5, "unknown-variable", "web.yml has no variable 'secrets'") in found

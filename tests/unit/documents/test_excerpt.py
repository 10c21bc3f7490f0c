"""The line of a document that a message shows, with its caret."""

import pytest
from particle_os.documents.excerpt import BEFORE_SHOWN, LINE_READ, LINE_SHOWN
from particle_os.errors import Excerpt, InvalidDocument, Problem
from particle_os.recipe import loading

TOP = "name: x\nstages:\n"


def shown(tmp_path, text, code):
    """The lines that people see of the first problem with a code."""
    path = tmp_path / "recipe.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path)
    return list(next(p for p in raised.value.problems if p.code == code).lines())[1:]


@pytest.mark.parametrize(
    ("text", "code", "line", "caret"),
    [
        (f"{TOP}  - {{type: qemu, size: 4GB}}\n", "bad-value",
         "  - {type: qemu, size: 4GB}", "                       ^"),
        # Without a known type, a value may be anything.
        (f"{TOP}  - {{type: users, users: [{{name: a, pasword: x}}]}}\n", "unknown-key",
         "  - {type: users, users: [{name: a, pasword: …}]}",
         "                                    ^"),
        (f"{TOP}  - {{type: users, users: [{{name: A}}]}}  # a comment\n", "bad-value",
         "  - {type: users, users: [{name: A}]}", "                                 ^"),
        (f"{TOP}  - {{type: apt, packages: [a, b}}\n", "yaml",
         "  - {type: apt, packages: [a, b}", "                               ^"),
        (f"{TOP}\t- type: qemu\n", "yaml", " - type: qemu", "^"),
        (f"{TOP}  - {{type: run, script: x}}\n   x: y\n", "yaml", "   x: y", "   ^"),
        (f"{TOP}  - {{type: qemu, formats: &p [raw]}}\n", "anchor",
         "  - {type: qemu, formats: … [raw]}", "                          ^"),
        (f"{TOP}  - {{type: qemu, formats: & [raw]}}\n", "yaml",
         "  - {type: qemu, formats: … [raw]}", "                           ^"),
        # The characters of East Asia take two columns.
        (f"{TOP}  - {{type: hostname, name: 日本, hostname: '日'}}\n", "bad-value",
         "  - {type: hostname, name: 日本, hostname: '日'}",
         "                                           ^"),
    ],
)  # fmt: skip
def test_the_caret_is_under_the_place(tmp_path, text, code, line, caret):
    assert shown(tmp_path, text, code)[:2] == [f"  | {line}", f"  | {caret}"]


@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\u202e", "\x07"])
def test_no_control_character_reaches_the_terminal(character):
    problem = Problem("r", 1, 1, "c", character, character, None)
    assert character not in "".join(problem.lines())


def test_a_control_character_of_the_line_is_escaped(tmp_path):
    lines = shown(tmp_path, f"{TOP}  - {{type: timezone, name: '\u202ea', zone: 5}}\n", "bad-value")
    assert "\\u202ea" in lines[0]
    assert lines[1].index("^") == lines[0].index("5")


def test_beside_a_confidential_value_only_known_values_are_shown(tmp_path):
    user = "{name: a, password-hash: hunter2, colour: red}"
    lines = shown(tmp_path, f"{TOP}  - type: users\n    users: [{user}]\n", "unknown-key")
    assert lines[0] == "  |     users: [{name: a, password-hash: …, colour: …}]"


# (the document, what its line shows)
ORDINARY = [
    (f"{TOP}  - type: run\n    script: echo a: b\n", "script: echo a: b"),
    (f"{TOP}  {{{{ if $x }}}}\n", "{{ if $x }}"),
    (f"{TOP}  - {{type: qemu}}\nboot-test: {{devices: [scsi, foo]}}\n", "{devices: [scsi, foo]}"),
    (f"{TOP}  - {{type: apt, pakages: [vim, linux-image-amd64]}}\n", "[vim, linux-image-amd64]"),
    ('name: "x\nstages: []\n', 'name: "x'),
    (f"{TOP}  - {{type: apt, size: 20m, path: /etc/motd, a: 12}}\n", "20m, path: /etc/motd, a: 12"),
]
KEY = "[ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIbad me@x]"
# (the document, the word that its lines must not show)
SECRET = [
    (f"{TOP}  - {{type: users, users: [{{name: a, paswrd: swordfish}}]}}\n", "swordfish"),
    (f"{TOP}  - {{type: users, users: [{{name: a, pw: [swordfish]}}]}}\n", "swordfish"),
    (f"{TOP}  - {{type: run, comand: 'login --token swordfish'}}\n", "swordfish"),
    (f"{TOP}  - {{type: run, comand: 'login --pass=swordfish'}}\n", "swordfish"),
    (f"{TOP}  - {{type: run, 'password swordfish': x}}\n", "swordfish"),
    (f"{TOP}  - {{type: run, comand: c0ffee1234deadbeef}}\n", "c0ffee"),
    (f"{TOP}  - {{type: run, comand: aB3dE5gH7}}\n", "aB3"),
    (f"{TOP}  - {{type: run, comand: 'http://me:swordfish@a.example/'}}\n", "swordfish"),
    (f"{TOP}  - type: users\n    password: 'a\n      swordfish' b\n", "swordfish"),
    (f"{TOP}  - type: users\n    password: swordfish: b\n", "swordfish"),
    (f"{TOP}  - type: users\n    password: |\n     a\n  swordfish\n b: [\n", "swordfish"),
    (f"{TOP}  - {{type: users, secrets: [swordfish}}\n", "swordfish"),
    (f"{TOP}  - type: run\n    script: 'a' swordfish b3Blbn8NzaC1rZXkg\n", "b3Bl"),
    (f"{TOP}  - type: users\n    users: [{{name: a, ssh-authorized-keys: {KEY}}}]\n", "AAAAC3"),
]  # fmt: skip


def excerpts(tmp_path, text):
    path = tmp_path / "recipe.yml"
    path.write_text(text)
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path)
    return [p.excerpt.text for p in raised.value.problems if p.excerpt]


@pytest.mark.parametrize(("text", "line"), ORDINARY)
def test_ordinary_words_are_shown_without_a_known_type_and_behind_an_error(tmp_path, text, line):
    found = excerpts(tmp_path, text)
    assert any(line in each for each in found), found


@pytest.mark.parametrize(("text", "word"), SECRET)
def test_what_may_be_a_secret_is_hidden(tmp_path, text, word):
    found = excerpts(tmp_path, text)
    assert found
    assert not any(word in each for each in found), found


def test_the_line_of_a_wrong_key_or_secret_is_shown_without_it(tmp_path):
    keys = f"{TOP}  - {{type: users, users: [{{name: a, ssh-authorized-keys: {KEY}}}]}}\n"
    assert excerpts(tmp_path, keys)[0].endswith("ssh-authorized-keys: […]}]}")
    one = "{machine: a.example, secret: swordfish}"
    found = excerpts(tmp_path, f"{TOP}  - {{type: apt, update: true, credentials: [{one}]}}\n")
    assert found[0].endswith("credentials: [{machine: a.example, secret: …}]}")


def test_a_confidential_value_of_several_lines_is_not_shown(tmp_path):
    user = "{name: a, password-hash: 'hunter2\n      swordfish', colour: red}"
    lines = shown(tmp_path, f"{TOP}  - type: users\n    users: [{user}]\n", "unknown-key")
    assert len(lines) == 1


@pytest.mark.parametrize("at_end", [True, False])
def test_a_long_line_is_cut_around_the_caret(tmp_path, at_end):
    packages = ", ".join(f"package-{i}" for i in range(60))
    wrong = f"[{packages}, BAD]" if at_end else f"[BAD, {packages}]"
    text = f"{TOP}  - {{type: apt, packages: {wrong}}}\n"
    line, caret = shown(tmp_path, text, "bad-value")[:2]
    assert len(line) <= LINE_SHOWN + 5
    assert line[caret.index("^") :].startswith("BAD")
    assert caret.index("^") <= BEFORE_SHOWN + 4
    assert line.startswith("  | …") == at_end
    assert line.endswith("…") != at_end


def test_an_endless_line_is_not_read(tmp_path):
    text = f"{TOP}  - {{type: apt, packages: [BAD{', a' * LINE_READ}]}}\n"
    assert not any("|" in line for line in shown(tmp_path, text, "bad-value"))


def test_the_line_of_an_included_file_is_shown(tmp_path):
    (tmp_path / "more.yml").write_text("- {type: timezone, zone: 5}\n")
    lines = shown(tmp_path, f"{TOP}  - include: more.yml\n  - type: qemu\n", "bad-value")
    assert lines[:2] == ["  | - {type: timezone, zone: 5}", "  |                          ^"]


def test_the_line_is_no_part_of_the_data():
    bare, full = (Problem("r", 1, 1, "c", "m", None, e) for e in (None, Excerpt("x", 0)))
    assert bare == full
    assert "excerpt" not in full.data()
    assert full.annotation("error") == bare.annotation("error")
